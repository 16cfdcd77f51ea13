//! What is shown of a lab whose test fails.

use std::fs;
use std::thread;

use crate::apache::ERROR_LOG;
use crate::mta::Mta;
use crate::syslog::MAIL_LOG;

/// Prints the logs and the queue when a test panics.
pub struct Evidence {
    /// The mail server whose queue it is.
    pub mta: &'static dyn Mta,
}

impl Drop for Evidence {
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        for log in [MAIL_LOG, ERROR_LOG] {
            eprintln!("\n==== the end of {log}\n{}", end(&fs::read(log).unwrap_or_default()));
        }
        let mut command = self.mta.queue_command();
        let queue = command.output().map_or_else(|error| error.to_string(), |output| end(&output.stdout));
        eprintln!("\n==== {command:?}\n{queue}");
    }
}

/// As much of the end of a text as is worth a look.
fn end(bytes: &[u8]) -> String {
    const SHOWN: usize = 8000;
    String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(SHOWN)..]).into_owned()
}
