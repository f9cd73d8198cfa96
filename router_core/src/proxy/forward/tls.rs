//! Redirected TLS: the client thinks it speaks to the destination itself. Its hello says the name, the redirect the port.

use crate::gate::egress::Refusal;
use crate::ids::{Destination, EgressDoor, EgressReason};
use crate::proxy::forward::connect;
use crate::proxy::forward::sniff::malformed;
use crate::proxy::forward::visit::Visit;
use crate::proxy::forward::{Conn, refuse, tunnel_limits};
use crate::wire::sni;

/// The port where a connection was not redirected.
const HTTPS: u16 = 443;

/// Serves a connection whose first byte begins a TLS record.
pub async fn serve(mut conn: Conn) {
    let mut visit = Visit::begin(&conn, EgressDoor::Tls);
    let strict = conn.worker.shared.settings.egress.strict_names;
    let port = conn.original().map_or(HTTPS, |original| original.port());
    // Until the hello says more; one that never ends is recorded so.
    visit.name(&format!("<no-hello>:{port}"));
    let hello = loop {
        match sni::client_hello(&conn.buffer) {
            Ok(Some(hello)) => break hello,
            Ok(None) => {}
            Err(e) => {
                let refusal =
                    Refusal::new(EgressReason::Malformed, "client-hello", malformed(&e), String::new());
                return refused(conn, &mut visit, &refusal, refuse::DECODE_ERROR).await;
            }
        }
        match conn.read_some().await {
            Ok(true) => {}
            // The client left, or took too long to say where it goes.
            _ => return,
        }
    };
    let refusal = match &hello.server_name {
        _ if hello.encrypted && strict => Some(Refusal::new(
            EgressReason::EncryptedHello,
            "egress-fronting",
            "the TLS client hello hides the server's name (ECH), so nobody can say where it goes".to_owned(),
            "switch ECH off in the client".to_owned(),
        )),
        None => Some(Refusal::new(
            EgressReason::NoServerName,
            "egress-fronting",
            "the TLS client hello has no server name (SNI), so nobody can say where it goes".to_owned(),
            "connect by name, or through HTTPS_PROXY".to_owned(),
        )),
        Some(_) => None,
    };
    let named = hello.server_name.as_ref().map_or_else(|| "<no-sni>".to_owned(), ToString::to_string);
    if let Some(refusal) = refusal {
        visit.name(&format!("{named}:{port}"));
        return refused(conn, &mut visit, &refusal, refuse::UNRECOGNIZED_NAME).await;
    }
    let Some(host) = hello.server_name else { return };
    let destination = Destination { host, port };
    match connect::leave(&conn.worker, &mut visit, &destination, None).await {
        Ok((passage, upstream)) => {
            let limits = tunnel_limits(&conn.worker, &passage);
            connect::pump(conn, upstream, visit, limits).await;
        }
        Err(_) if visit.is_denied() => conn.finish(&sni::alert(refuse::ACCESS_DENIED)).await,
        Err(_) => conn.finish(&sni::alert(refuse::INTERNAL_ERROR)).await,
    }
}

async fn refused(conn: Conn, visit: &mut Visit, refusal: &Refusal, description: u8) {
    visit.refused(refusal);
    conn.finish(&sni::alert(description)).await;
}
