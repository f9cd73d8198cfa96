//! Measures what a tunnel costs.
//!
//! `tunnel_cost proxy run|loop|splice <port>` serves CONNECT on loopback: by `net::tunnel::run`, by a copy loop of 8 KiB,
//! or by bare splicing, the floor. `tunnel_cost load bulk|ping <port> <tunnels> <seconds> [<pid>]` is the other side of it,
//! client and origin in one; port 0 goes without a proxy; with the proxy's process id it prints its CPU, too.
//! Pin the proxy and the load to different cores (`taskset -c`), and compare ratios of interleaved runs only:
//!
//! ```text
//! taskset -c 0 tunnel_cost proxy run 8401 &
//! taskset -c 1 tunnel_cost load bulk 8401 8 2 $!
//! ```

use std::cell::RefCell;
use std::io::{Error, Read, Result, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use router_core::limits::PIPE_BYTES;
use router_core::net::tunnel::{BUFFER_BYTES, Limits, run};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u64>().map_err(Error::other);
    let port = |text: &str| text.parse::<u16>().map_err(Error::other);
    match *args.as_slice() {
        ["proxy", mode @ ("run" | "loop" | "splice"), at] => proxy(mode, port(at)?),
        ["load", mode @ ("bulk" | "ping"), at, tunnels, seconds, ref pid @ ..] => {
            let cpu = || pid.first().map_or(Ok(0), |pid| cpu_ns(pid));
            load(mode, port(at)?, number(tunnels)?, Duration::from_secs(number(seconds)?), &cpu)
        }
        _ => Err(Error::other(
            "proxy run|loop|splice <port>; load bulk|ping <port> <tunnels> <seconds> [<pid>]",
        )),
    }
}

type Tcp = tokio::net::TcpStream;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; BUFFER_BYTES]);
}

fn proxy(mode: &str, port: u16) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        loop {
            let (client, _) = listener.accept().await?;
            let mode = mode.to_owned();
            tokio::task::spawn_local(async move { serve(client, &mode).await });
        }
    })
}

async fn serve(mut client: Tcp, mode: &str) -> Result<()> {
    client.set_nodelay(true)?;
    let mut head = Vec::with_capacity(512);
    while !head.ends_with(b"\r\n\r\n") {
        if client.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let to = String::from_utf8_lossy(&head).split(' ').nth(1).unwrap_or_default().to_owned();
    drop(head);
    let mut upstream = Tcp::connect(to).await?;
    upstream.set_nodelay(true)?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    match mode {
        "run" => {
            let limits = Limits { idle: Duration::from_secs(60), until: None, bytes: 0 };
            let scratch = |use_it: &mut dyn FnMut(&mut [u8])| BUFFER.with_borrow_mut(|buffer| use_it(buffer));
            run(&client, &upstream, Vec::new(), limits, scratch, || false).await;
        }
        "loop" => {
            tokio::io::copy_bidirectional(&mut client, &mut upstream).await?;
        }
        _ => {
            tokio::try_join!(pump(&client, &upstream), pump(&upstream, &client))?;
        }
    }
    Ok(())
}

/// Splices one way with a pipe of its own.
async fn pump(from: &Tcp, to: &Tcp) -> Result<()> {
    let (outlet, inlet) = pipe_with(PipeFlags::NONBLOCK)?;
    fcntl_setpipe_size(&inlet, PIPE_BYTES)?;
    loop {
        let fill = || Ok(splice(from, None, &inlet, None, PIPE_BYTES, SpliceFlags::NONBLOCK)?);
        let mut held = from.async_io(Interest::READABLE, fill).await?;
        if held == 0 {
            return SockRef::from(to).shutdown(std::net::Shutdown::Write);
        }
        while held > 0 {
            let drain = || Ok(splice(&outlet, None, to, None, held, SpliceFlags::NONBLOCK)?);
            held -= to.async_io(Interest::WRITABLE, drain).await?;
        }
    }
}

/// CPU time of a process's first thread, which is all that a proxy here has.
fn cpu_ns(pid: &str) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat"))?;
    text.split(' ').next().and_then(|ns| ns.parse().ok()).ok_or_else(|| Error::other("no CPU time"))
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn load(mode: &str, port: u16, tunnels: u64, time: Duration, cpu: &dyn Fn() -> Result<u64>) -> Result<()> {
    let bulk = mode == "bulk";
    let origin = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let to = origin.local_addr()?.port();
    std::thread::spawn(move || {
        for tcp in origin.incoming().flatten() {
            // An end of the connection is the end of the thread.
            std::thread::spawn(move || if bulk { pour(tcp) } else { echo(tcp) });
        }
    });
    let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut clients = Vec::new();
    for _ in 0..tunnels {
        let tcp = connect(port, to)?;
        let (done, stop) = (Arc::clone(&done), Arc::clone(&stop));
        clients.push(std::thread::spawn(move || client(tcp, bulk, &done, &stop)));
    }
    std::thread::sleep(Duration::from_millis(200));
    let (start, before, used) = (Instant::now(), done.load(Relaxed), cpu()?);
    std::thread::sleep(time);
    let (moved, used) = ((done.load(Relaxed) - before) as f64, (cpu()? - used) as f64 / 1e3);
    let seconds = start.elapsed().as_secs_f64();
    stop.store(true, Relaxed);
    if bulk {
        println!("{:.3} GB/s, {:.1} us/MB", moved / seconds / 1e9, used / (moved / 1e6));
    } else {
        println!("{:.0} round trips/s, {:.2} us each", moved / seconds, used / moved);
    }
    for client in clients {
        client.join().map_err(|_| Error::other("a client broke"))??;
    }
    Ok(())
}

fn connect(proxy: u16, origin: u16) -> Result<TcpStream> {
    let mut tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, if proxy == 0 { origin } else { proxy }))?;
    tcp.set_nodelay(true)?;
    if proxy > 0 {
        write!(tcp, "CONNECT 127.0.0.1:{origin} HTTP/1.1\r\nHost: 127.0.0.1:{origin}\r\n\r\n")?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            tcp.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
    }
    Ok(tcp)
}

fn client(mut tcp: TcpStream, bulk: bool, done: &AtomicU64, stop: &AtomicBool) -> Result<()> {
    let mut buffer = vec![0; if bulk { 256 * 1024 } else { 1 }];
    while !stop.load(Relaxed) {
        let count = if bulk {
            tcp.read(&mut buffer)? as u64
        } else {
            tcp.write_all(&buffer)?;
            tcp.read_exact(&mut buffer)?;
            1
        };
        done.fetch_add(count, Relaxed);
    }
    Ok(())
}

fn pour(mut tcp: TcpStream) -> Result<()> {
    let block = vec![7; 256 * 1024];
    loop {
        tcp.write_all(&block)?;
    }
}

fn echo(mut tcp: TcpStream) -> Result<()> {
    tcp.set_nodelay(true)?;
    let mut byte = [0];
    loop {
        tcp.read_exact(&mut byte)?;
        tcp.write_all(&byte)?;
    }
}
