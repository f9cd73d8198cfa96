//! Sockets without policy: listen, dial, TLS, deadlines, the byte pipe between a call and an HTTP/2 body.

pub mod conn;
pub mod deadline;
pub mod dial;
pub mod listener;
pub mod pipe;
pub mod resolve;
pub mod rewind;
pub mod signal;
pub mod tls;
pub mod tunnel;
