//! A bounded byte pipe within one thread: a call writes its answer, an HTTP/2 body reads it.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};

/// Bytes the pipe holds before its writer waits; an HTTP/2 stream window's usual size.
const CAPACITY: usize = 64 * 1024;

/// The answer broke off: the HTTP/2 stream is reset so that it cannot pass for complete.
#[derive(Debug)]
pub struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the answer broke off")
    }
}

impl std::error::Error for Broken {}

#[derive(Debug, Default)]
struct Shared {
    bytes: BytesMut,
    /// `Some(true)`: ended whole; `Some(false)`: broke off.
    ended: Option<bool>,
    reader_gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// The call's end. Dropping it without [`Writer::finish`] breaks the answer off.
#[derive(Debug)]
pub struct Writer(Rc<RefCell<Shared>>);

/// The body's end. Dropping it tells the writer that the client left.
#[derive(Debug)]
pub struct Reader(Rc<RefCell<Shared>>);

/// Makes a pipe.
pub fn pipe() -> (Writer, Reader) {
    let shared = Rc::new(RefCell::new(Shared::default()));
    (Writer(Rc::clone(&shared)), Reader(shared))
}

impl Writer {
    /// Takes all of `bytes`; the bound is kept by waiting in [`Writer::poll_ready`] first.
    pub fn push(&self, bytes: &[u8]) {
        let mut shared = self.0.borrow_mut();
        shared.bytes.extend_from_slice(bytes);
        wake(&mut shared.reader);
    }

    /// Ready when the pipe has room.
    pub fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut shared = self.0.borrow_mut();
        if shared.reader_gone || shared.bytes.len() < CAPACITY {
            return Poll::Ready(());
        }
        shared.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Ready when the reader is gone.
    pub fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut shared = self.0.borrow_mut();
        if shared.reader_gone {
            return Poll::Ready(());
        }
        shared.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Ends the answer whole.
    pub fn finish(&self) {
        let mut shared = self.0.borrow_mut();
        shared.ended.get_or_insert(true);
        wake(&mut shared.reader);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut shared = self.0.borrow_mut();
        shared.ended.get_or_insert(false);
        wake(&mut shared.reader);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut shared = self.0.borrow_mut();
        shared.reader_gone = true;
        wake(&mut shared.writer);
    }
}

fn wake(slot: &mut Option<Waker>) {
    if let Some(waker) = slot.take() {
        waker.wake();
    }
}

impl Body for Reader {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let mut shared = self.0.borrow_mut();
        if !shared.bytes.is_empty() {
            let bytes = shared.bytes.split().freeze();
            wake(&mut shared.writer);
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        match shared.ended {
            Some(true) => Poll::Ready(None),
            Some(false) => Poll::Ready(Some(Err(Broken))),
            None => {
                shared.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let shared = self.0.borrow();
        shared.bytes.is_empty() && shared.ended == Some(true)
    }
}
