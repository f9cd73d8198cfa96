//! What one writes first: tokio's own copy loop with 8 KiB a direction, as the reference has.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional_with_sizes};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

use super::{ESTABLISHED, HEAD_BYTES, asked};
use crate::args::{Args, Fallible};

/// Bytes of each direction's buffer.
const BUFFER_BYTES: usize = 8 * 1024;

/// Serves until it is killed.
pub fn run(mut args: Args) -> Fallible<()> {
    let port = args.required::<u16>("--port")?;
    args.finish()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, serve(port))
}

async fn serve(port: u16) -> Fallible<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    loop {
        let (socket, _) = listener.accept().await?;
        // Ends with its client; a reference proxy drains nothing, and a broken tunnel is the client's to count.
        tokio::task::spawn_local(async { tunnel(socket).await.ok() });
    }
}

async fn tunnel(mut client: TcpStream) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let mut head = Vec::with_capacity(512);
    let (port, len) = loop {
        if client.read_buf(&mut head).await? == 0 || head.len() > HEAD_BYTES {
            return Ok(());
        }
        if let Some(found) = asked(&head) {
            break found;
        }
    };
    let mut upstream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    upstream.set_nodelay(true)?;
    client.write_all(ESTABLISHED).await?;
    if let Some(rest @ [_, ..]) = head.get(len..) {
        upstream.write_all(rest).await?;
    }
    copy_bidirectional_with_sizes(&mut client, &mut upstream, BUFFER_BYTES, BUFFER_BYTES).await?;
    Ok(())
}
