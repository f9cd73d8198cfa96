//! The doors: each takes a client's bytes, passes the gate, and moves an answer back.

pub mod account;
pub mod answer;
pub mod call;
pub mod client;
pub mod cold;
pub mod forward;
pub mod h2;
pub mod inbound;
pub mod local;
pub mod respond;
pub mod routes;
pub mod server;
pub mod sink;
pub mod stream;
pub mod upstream;
pub mod worker;
