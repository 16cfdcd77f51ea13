//! Standard input, as far as it comes in good time: the body of a request.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::poll::{READABLE, ready};

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reads standard input, until it ends or takes too long.
pub struct Input {
    stdin: io::Stdin,
    until: Instant,
}

impl Input {
    /// The time begins now.
    pub fn begin() -> Input {
        Input { stdin: io::stdin(), until: Instant::now() + PATIENCE }
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let left = self.until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if ready(&[(Some(self.stdin.as_fd()), READABLE)], left).iter().all(|found| found.is_empty()) {
                continue;
            }
            match nix::unistd::read(&self.stdin, buffer) {
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                read => return Ok(read?),
            }
        }
    }
}
