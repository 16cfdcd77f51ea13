//! Bartleby: the mail queue of a fall-back mail server as one CGI page.
//!
//! Data flows one way: [`gateway`] → [`request`] → [`listing`], [`primary`], [`disk`], [`flush`] → [`view`] →
//! [`gateway`], led by [`page`] and by [`cli`]. A lower module never imports a higher one. Whatever strangers wrote is
//! read in the [`cage`]; what takes a program afterwards is done by this program once more, see [`itself`].
#![forbid(unsafe_code)]

pub mod access;
pub mod cage;
pub mod check;
pub mod cli;
pub mod config;
pub mod context;
pub mod disk;
pub mod doctor;
pub mod flush;
pub mod gateway;
pub mod history;
pub mod itself;
pub mod listing;
pub mod look;
pub mod mta;
pub mod number;
pub mod outcome;
pub mod page;
pub mod primary;
pub mod queue;
pub mod reasons;
pub mod request;
pub mod store;
pub mod survey;
pub mod system;
pub mod view;
pub mod watch;
