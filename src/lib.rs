//! Bartleby: the mail queue of a fall-back mail server as one CGI page. This page is the map of the source;
//! `ARCHITECTURE.md` draws the processes and says what happens when something fails.
//!
//! # Layers
//!
//! A module uses only modules that stand above it in this table; `tests/layers.rs` fails on one that does otherwise.
//!
//! | module | what it owns |
//! |---|---|
//! | [`text`] | numbers, times and foreign text as people read them |
//! | [`system`] | the operating system: the right to act ([`system::Free`]), programs and branches (`system::process`), waiting, output |
//! | `sandbox` | the sandbox, and workers: branches that do one job and answer once |
//! | [`queue`] | the field's words: message, target, filter, order, row, selection, summary; no I/O |
//! | [`mta`] | the mail servers: one file and one row of a table each; parsers without I/O |
//! | [`config`] | `bartleby.toml` |
//! | [`state`] | what is remembered between requests: locks, log of queue runs, primaries, samples |
//! | [`request`] | what is asked, vetted |
//! | [`context`] | configuration and machine, gathered once |
//! | [`primary`] | name servers and primary mail servers |
//! | [`listing`] | one listing: the lister, the parent's half and the reader's half |
//! | [`flush`] | the queue run: may it start, the worker, what comes of it |
//! | [`report`] | everything that one answer is made from, and how it is made; disks, history |
//! | [`view`] | a report in its forms; no I/O |
//! | `web` | the web server, asked as its visitors ask it |
//! | `watch` | runs the queue when the primary is back |
//! | [`cgi`] | the page: environment in, answer out |
//! | [`cli`] | the command line |
//!
//! # Processes
//!
//! The **parent** starts programs, keeps the deadline, the state and the error log, and talks to the client. It parses
//! no listing. The **reader** is a branch of it (fork(2)) that enters the sandbox before it reads the first byte of a
//! listing; it parses, counts and renders. The **prober** is a branch that asks name servers and primaries in a
//! sandbox of its own. The **worker** of a queue run is a branch that outlives the request.
//!
//! Two rules are kept by the compiler. [`system::Free`] is the right to open files, to start programs and to connect:
//! `main` makes the only one, each branch begins with one, and entering the sandbox consumes it. And the function that
//! reads a listing asks for the proof that the sandbox was entered.
#![deny(unsafe_code)]
#![deny(clippy::fn_params_excessive_bools)]

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
pub mod sandbox;
pub mod state;
pub mod system;
pub mod text;
pub mod view;
pub(crate) mod watch;
pub(crate) mod web;
