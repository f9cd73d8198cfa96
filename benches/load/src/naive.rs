//! What one writes first: a reverse proxy of hyper's own server and client, on one thread.
//!
//! It is the reference for what a message-oriented HTTP library costs per call and per streamed event.

use std::net::Ipv4Addr;

use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Uri};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

use crate::args::{Args, Fallible};

type Pool = Client<HttpConnector, Incoming>;

/// Serves until it is killed.
pub fn run(mut args: Args) -> Fallible<()> {
    let (port, upstream) = (args.required::<u16>("--port")?, args.required::<u16>("--upstream")?);
    args.finish()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, serve(port, upstream))
}

async fn serve(port: u16, upstream: u16) -> Fallible<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let pool: Pool = Client::builder(TokioExecutor::new()).build(connector);
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        // Ends with its client; a reference proxy drains nothing.
        tokio::task::spawn_local(connection(socket, pool.clone(), upstream));
    }
}

async fn connection(socket: TcpStream, pool: Pool, upstream: u16) {
    let service = service_fn(|mut request: Request<Incoming>| {
        let target = format!("http://127.0.0.1:{upstream}{}", request.uri().path());
        if let Ok(uri) = Uri::try_from(target) {
            *request.uri_mut() = uri;
        }
        request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_static("Bearer sk-upstream-secret"));
        pool.request(request)
    });
    // A broken connection is the client's to count.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
}
