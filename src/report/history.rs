//! How the queue and its disk have changed: what the samples on record tell.

use crate::state::{Records, Sample};

/// A rate is worked out from samples that are at least this far apart, in seconds.
const LEAST_SPAN: i64 = 30 * 60;

/// What is "today", in seconds.
const TODAY: i64 = 24 * 60 * 60;

/// Takes note of a sample, and returns all of them, the oldest first and this one last.
pub(crate) fn add(records: Option<&Records>, sample: Sample) -> Vec<Sample> {
    // Where there is no room for it, the page says so itself.
    let mut history = records.map(|records| records.add_sample(&sample)).unwrap_or_default();
    // At most one a minute is kept; this one is the latest.
    history.pop_if(|last| sample.taken - last.taken < 60);
    history.push(sample);
    history
}

/// Seconds until the queue's filesystem is full if it goes on as it did today; `None` where it does not fill, or
/// too little is known.
pub(crate) fn seconds_until_full(samples: &[Sample], now: i64, free: u64) -> Option<i64> {
    let since = |sample: &&Sample| (now - TODAY..=now - LEAST_SPAN).contains(&sample.taken) && sample.free.is_some();
    let first = samples.iter().find(since)?;
    let lost = first.free?.checked_sub(free).filter(|lost| *lost > 0)?;
    let seconds = i128::from(free) * i128::from(now - first.taken) / i128::from(lost);
    i64::try_from(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_is_full_when_it_goes_on_so() {
        let at = |taken, free| Sample { taken, messages: 0, recipients: 0, bytes: None, free: Some(free) };
        let now = 1_000_000;
        assert_eq!(seconds_until_full(&[at(now - 3600, 200)], now, 100), Some(3600));
        assert_eq!(seconds_until_full(&[at(now - 3600, 100)], now, 100), None, "it does not fill");
        assert_eq!(seconds_until_full(&[at(now - 3600, 50)], now, 100), None, "it empties");
        assert_eq!(seconds_until_full(&[at(now - 60, 200)], now, 100), None, "too soon to tell");
        assert_eq!(seconds_until_full(&[at(now - 2 * TODAY, 900), at(now - 7200, 300)], now, 100), Some(3600));
        assert_eq!(seconds_until_full(&[], now, 100), None);
    }
}
