//! The field's words: a queued message, its recipients, and what is said of a whole queue.
//!
//! Everything here is pure: it reads no clock and does no I/O, but for the file that [`Selection`] may be given for a
//! page deep in a long queue. A parser lends each [`Message`] for the length of one call; to keep it longer, use
//! [`Message::into_owned`].

mod cause;
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

pub use cause::Cause;
pub use filter::{Ages, Filter};
pub use mask::Mask;
pub use message::{Message, Recipient, State};
pub(crate) use message::{beginning, rfc3339};
pub use order::{Order, SortKey};
pub use overflow::NotKept;
pub(crate) use pattern::{common_part, pattern};
pub use row::Row;
pub use selection::{NoRows, Selection, Window};
pub(crate) use summary::Stranded;
pub use summary::{AGE_LIMITS, Destination, Reason, Summary};
pub use target::Target;
