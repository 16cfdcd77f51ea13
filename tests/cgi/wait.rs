//! Waiting for a condition: asked again and again until it holds or its time is up.

use std::thread;
use std::time::{Duration, Instant};

/// Fails where it does not hold within so many seconds.
#[track_caller]
pub fn until(what: &str, seconds: u64, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(seconds);
    while !holds() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
