//! Bartleby: the mail queue of a fall-back mail server as one CGI page.
//!
//! Data flows one way: [`cgi::gateway`] → [`request`] → [`listing`], [`primary`], [`report::disk`], [`flush`] → [`view`] →
//! [`cgi::gateway`], led by [`cgi::routes`] and by [`cli`]. Whatever strangers wrote is read in the [`sandbox`]; what
//! takes a program afterwards is done by this program once more, see [`sandbox::worker`].
#![deny(unsafe_code)]

pub mod cgi;
pub mod cli;
pub mod config;
pub mod context;
pub mod flush;
pub mod listing;
pub mod mta;
pub mod primary;
pub mod queue;
pub mod report;
pub mod request;
pub(crate) mod sandbox;
pub mod state;
pub mod system;
pub mod text;
pub mod view;
pub(crate) mod watch;
