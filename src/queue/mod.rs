//! The field's words: a queued message, its recipients, and what is said of a whole queue.
//!
//! Everything here is pure: it reads no clock and does no I/O, but for the file that [`Selection`] may be given for a
//! page deep in a long queue. A parser lends each [`Message`] for the length of one call; to keep it longer, use
//! [`Message::into_owned`].

mod candidates;
mod cause;
mod clocks;
mod filter;
mod mask;
mod message;
mod order;
mod overflow;
mod pattern;
mod row;
mod selection;
mod summary;
mod target;

pub use candidates::{Candidate, Candidates, Stakes, in_turn, is_plain_address};
pub(crate) use cause::Cause;
pub(crate) use clocks::Due;
pub use clocks::{Clocks, Cutoff, Deadlines, Lifetimes, OfInstance, Returns};
pub(crate) use filter::{Ages, Filter};
pub use mask::Mask;
pub use message::{Message, Plan, State};
pub(crate) use message::{Recipient, beginning, rfc3339};
pub use order::{Order, SortKey};
pub(crate) use pattern::{common_part, pattern};
pub use row::Row;
pub(crate) use selection::NoRows;
pub use selection::{Selection, Window};
pub(crate) use summary::Stranded;
pub use summary::Summary;
pub(crate) use summary::{AGE_LIMITS, Destination};
pub use target::{Despite, Target};
