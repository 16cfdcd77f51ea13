//! The built program as a web server runs it: an environment, a body, an answer. The mail server is
//! played by recorded output; the real ones are asked in the lab.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../listed/mod.rs"]
mod listed;
#[path = "../machine/mod.rs"]
mod machine;

mod access;
mod advice;
mod announced;
mod clocks;
mod command_line;
mod crowd;
mod drill;
mod flush;
mod listing;
mod machines;
mod mail_log;
mod memory;
mod names;
mod notify;
mod outcomes;
mod page;
mod played;
mod primary;
mod prober;
mod process;
mod receipt;
mod rehearsal;
mod requests;
mod servers;
mod slow_readers;
mod start;
mod state;
mod text_form;
mod wait;
mod web;
