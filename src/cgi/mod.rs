//! The page as a CGI program (RFC 3875): environment in, answer out.

pub mod access;
pub mod gateway;
mod host;
pub mod routes;
