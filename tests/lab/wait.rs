//! Waiting for a condition: asked again and again until it holds or its time is up.

use std::thread::sleep;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(50);

/// The first success of `attempt`, or its last failure when `longest` is over.
pub fn poll<T, E>(longest: Duration, mut attempt: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let end = Instant::now() + longest;
    loop {
        match attempt() {
            Err(_) if Instant::now() < end => sleep(PAUSE),
            result => return result,
        }
    }
}

/// The same, and a panic that says what was waited for and what there was instead.
pub fn until<T>(what: &str, seconds: u64, attempt: impl FnMut() -> Result<T, String>) -> T {
    poll(Duration::from_secs(seconds), attempt)
        .unwrap_or_else(|instead| panic!("Waited {seconds} s until {what}. Instead: {instead}"))
}
