//! Totals over a whole queue, counted while the messages pass by, in bounded memory.

use std::borrow::Cow;

use hashbrown::HashMap;
use hashbrown::hash_map::EntryRef;
use serde::{Deserialize, Serialize};

use super::{Cause, Clocks, Deadlines, Lifetimes, Message, State, pattern};

/// The upper ends of the age buckets in minutes, which are those of Postfix's `qshape(1)`; one more bucket holds all
/// that is older.
pub(crate) const AGE_LIMITS: [i64; 9] = [5, 10, 20, 40, 80, 160, 320, 640, 1280];

/// The most destinations, and the most reasons, that are counted one by one at a time. Where there are more, the smaller
/// half of them is added to "other", and the large and frequent ones stay. The count of a name is then a lower bound,
/// as some of it may have gone to "other"; the sum is always right.
const DISTINCT_LIMIT: usize = 2048;

/// The most bytes that the names of either may take together: strangers choose them.
const NAMES_LIMIT: usize = 1024 * 1024;

/// The longest name that is counted on its own, in bytes; a longer one counts with the others.
const LONGEST_NAME: usize = 64 * 1024;

/// Totals over a queue. It can be sent to another process, and goes on counting there.
/// The two MiB of names that it may hold take up to six times as much where they are all control characters.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Summary {
    /// Messages that wait.
    pub messages: u64,
    /// Recipients that wait. Those whose copy has been delivered don't count.
    pub recipients: u64,
    /// Recipients whose copy has been delivered, of messages that still wait for other recipients.
    pub delivered: u64,
    bytes: u64,
    sized: u64,
    /// Arrival of the oldest message, in seconds since 1970.
    pub(crate) oldest: Option<i64>,
    /// Arrival of the newest message.
    pub(crate) newest: Option<i64>,
    /// Senders, recipients and reasons that the mail server cut short.
    pub(crate) cut: u64,
    states: [u64; State::ALL.len()],
    /// Messages that wait for an administrator.
    pub(crate) on_hold: u64,
    /// Messages that a queue run passes over until they are older.
    pub(crate) too_young: u64,
    recipients_in: [u64; State::ALL.len()],
    destinations: Counters<Counts>,
    reasons: Counters<ReasonCount>,
    /// When the messages go back to their senders.
    pub deadlines: Deadlines,
    clocks: Clocks,
}

/// How much waits for one domain. It is serialised as the answer has it, without the cause: to send it to another
/// process, send the whole [`Summary`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Destination {
    /// The domain in lower case; `None` for all domains that are not counted one by one.
    pub(crate) domain: Option<String>,
    /// Recipients that wait.
    pub recipients: u64,
    /// Messages with such a recipient.
    pub messages: u64,
    /// Recipients by age, see [`AGE_LIMITS`], of those whose age is known.
    pub ages: [u64; AGE_LIMITS.len() + 1],
    /// The cause that keeps more than half of its recipients waiting, where there is one.
    #[serde(skip)]
    pub(crate) cause: Option<Cause>,
}

/// How many recipients wait for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// The reason in the mail server's words; `None` for all that are not counted one by one.
    pub(crate) reason: Option<String>,
    /// Recipients that wait for it.
    pub recipients: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Counts {
    recipients: u64,
    messages: u64,
    /// The number of the last message counted, so that each counts once.
    last_message: u64,
    ages: [u64; AGE_LIMITS.len() + 1],
    causes: [u64; Cause::ALL.len()],
    /// Of the recipients of messages that are not held.
    stranded: Stranded,
    /// When the first of it goes back, in seconds since 1970.
    first_return: Option<i64>,
}

/// Recipients whose mail may only have waited until its destination can be reached. Those of held messages don't count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stranded {
    /// Their destination could not be reached at the last attempt.
    pub unreached: u64,
    /// Why they wait is not known.
    pub unexplained: u64,
}

impl Stranded {
    fn merge(&mut self, other: Stranded) {
        self.unreached += other.unreached;
        self.unexplained += other.unexplained;
    }
}

/// Recipients that wait for one reason, and its cause, which is looked for once.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct ReasonCount {
    recipients: u64,
    cause: Option<Option<Cause>>,
}

/// The counts under one name.
trait Tally: Default {
    /// The number that decides which half is the larger one.
    fn recipients(&self) -> u64;

    /// Adds the counts under another name.
    fn merge(&mut self, other: &Self);
}

impl Tally for ReasonCount {
    fn recipients(&self) -> u64 {
        self.recipients
    }

    fn merge(&mut self, other: &Self) {
        self.recipients += other.recipients;
    }
}

impl Tally for Counts {
    fn recipients(&self) -> u64 {
        self.recipients
    }

    fn merge(&mut self, other: &Counts) {
        self.recipients += other.recipients;
        self.messages += other.messages;
        for (mine, theirs) in self.ages.iter_mut().zip(other.ages) {
            *mine += theirs;
        }
        for (mine, theirs) in self.causes.iter_mut().zip(other.causes) {
            *mine += theirs;
        }
        self.stranded.merge(other.stranded);
        self.first_return = self.first_return.into_iter().chain(other.first_return).min();
    }
}

impl Counts {
    fn add(&mut self, message: u64, bucket: Option<usize>, cause: Option<Cause>, stranded: Stranded) {
        self.recipients += 1;
        self.stranded.merge(stranded);
        if let Some(cause) = cause {
            self.causes[cause as usize] += 1;
        }
        if let Some(bucket) = bucket {
            self.ages[bucket] += 1;
        }
        if self.last_message != message {
            self.last_message = message;
            self.messages += 1;
        }
    }

    fn named(self, domain: Option<String>) -> Destination {
        let cause = Cause::ALL.into_iter().find(|cause| self.causes[*cause as usize] * 2 > self.recipients);
        Destination { domain, recipients: self.recipients, messages: self.messages, ages: self.ages, cause }
    }
}

impl Summary {
    /// An empty summary.
    pub fn new(clocks: impl Into<Clocks>) -> Self {
        Summary { clocks: clocks.into(), ..Summary::default() }
    }

    /// How long mail is kept, as it was known when this was counted; where a host's first failure decides, counted from
    /// its oldest message.
    pub(crate) fn lifetimes(&self) -> Lifetimes {
        self.clocks.lifetimes.since_oldest(self.deadlines.oldest_for_host)
    }

    /// Counts one message.
    pub fn add(&mut self, message: &Message<'_>) {
        self.messages += 1;
        let returns = self.deadlines.add(message, &self.clocks);
        self.bytes = self.bytes.saturating_add(message.size.unwrap_or(0));
        self.sized += u64::from(message.size.is_some());
        self.states[message.state as usize] += 1;
        self.on_hold += u64::from(message.is_on_hold());
        self.too_young += u64::from(message.too_young && !message.is_on_hold());
        self.newest = self.newest.max(message.arrival);
        self.oldest = self.oldest.into_iter().chain(message.arrival).min();
        let is_cut = |text: Option<&str>| u64::from(text.is_some_and(|text| text.ends_with('…')));
        self.cut += is_cut(message.sender.as_deref());
        for recipient in &message.recipients {
            self.cut += is_cut(Some(&recipient.address)) + is_cut(recipient.reason.as_deref());
        }
        let bucket = message.arrival.map(|arrival| self.bucket(arrival));
        for recipient in &message.recipients {
            if recipient.delivered {
                self.delivered += 1;
                continue;
            }
            self.recipients += 1;
            self.recipients_in[message.state as usize] += 1;
            let cause = recipient.reason.as_deref().and_then(|reason| self.add_reason(reason));
            let is_held = message.is_on_hold();
            let stranded = Stranded {
                unreached: u64::from(!is_held && cause.is_some_and(Cause::is_unreached)),
                unexplained: u64::from(!is_held && recipient.reason.is_none()),
            };
            let destination = self.destinations.of(&in_lower_case(recipient.domain()));
            destination.add(self.messages, bucket, cause, stranded);
            destination.first_return = destination.first_return.into_iter().chain(returns).min();
        }
    }

    fn add_reason(&mut self, reason: &str) -> Option<Cause> {
        let known = self.reasons.of(reason);
        known.recipients += 1;
        if reason.len() > LONGEST_NAME {
            return Cause::of(reason);
        }
        *known.cause.get_or_insert_with(|| Cause::of(reason))
    }

    /// Size of all messages in bytes, of those whose size is known; `None` where the mail server gives no
    /// size at all.
    pub fn bytes(&self) -> Option<u64> {
        (self.sized > 0 || self.messages == 0).then_some(self.bytes)
    }

    /// Messages in one state.
    pub fn state(&self, state: State) -> u64 {
        self.states[state as usize]
    }

    /// Recipients that wait, of the messages in one state.
    pub fn recipients_in(&self, state: State) -> u64 {
        self.recipients_in[state as usize]
    }

    /// The `limit` destinations with the most recipients, then all others as one. (A message for
    /// several of the others counts once for each.)
    pub fn destinations(&self, limit: usize) -> Vec<Destination> {
        let mut all: Vec<_> = self.destinations.named.iter().collect();
        all.sort_by(|(a_name, a), (b_name, b)| b.recipients.cmp(&a.recipients).then_with(|| a_name.cmp(b_name)));
        let mut other = self.destinations.other.clone();
        all.iter().skip(limit).for_each(|(_, counts)| other.merge(counts));
        let mut list: Vec<_> =
            all.into_iter().take(limit).map(|(name, counts)| counts.clone().named(Some(name.clone()))).collect();
        if other.recipients > 0 {
            // A message for several of them was counted at each of them.
            other.messages = other.messages.min(self.messages);
            list.push(other.named(None));
        }
        list
    }

    /// How much may only have waited until its destination can be reached, of what is for the domains that `is_meant`
    /// picks; domains that are not counted one by one are not among them.
    pub(crate) fn stranded(&self, is_meant: impl Fn(&str) -> bool) -> Stranded {
        let mut all = Stranded::default();
        let meant = self.destinations.named.iter().filter(|(domain, _)| is_meant(domain));
        meant.for_each(|(_, counts)| all.merge(counts.stranded));
        all
    }

    /// When the first of what is for the domains that `is_meant` picks goes back, in seconds since 1970; domains that are
    /// not counted one by one are among them.
    pub(crate) fn first_return(&self, is_meant: impl Fn(&str) -> bool) -> Option<i64> {
        let meant = self.destinations.named.iter().filter(|(domain, _)| is_meant(domain)).map(|(_, counts)| counts);
        meant.chain([&self.destinations.other]).filter_map(|counts| counts.first_return).min()
    }

    /// The `limit` reasons with the most recipients, then all others as one.
    pub fn reasons(&self, limit: usize) -> Vec<Reason> {
        let mut all: Vec<_> = self.reasons.named.iter().collect();
        all.sort_by(|(a_text, a), (b_text, b)| b.recipients.cmp(&a.recipients).then_with(|| a_text.cmp(b_text)));
        let other =
            self.reasons.other.recipients + all.iter().skip(limit).map(|(_, count)| count.recipients).sum::<u64>();
        let named = all
            .into_iter()
            .take(limit)
            .map(|(text, count)| Reason { reason: Some(text.clone()), recipients: count.recipients });
        named.chain((other > 0).then_some(Reason { reason: None, recipients: other })).collect()
    }

    /// The reasons without the names in them, as `pattern` has them: the `limit` with the most recipients, out of those
    /// that are counted one by one.
    pub(crate) fn reason_patterns(&self, limit: usize) -> Vec<(String, u64)> {
        let mut patterns: HashMap<String, u64> = HashMap::new();
        for (reason, count) in &self.reasons.named {
            *patterns.entry(pattern(reason)).or_default() += count.recipients;
        }
        let mut all: Vec<_> = patterns.into_iter().collect();
        all.sort_by(|(a_text, a), (b_text, b)| b.cmp(a).then_with(|| a_text.cmp(b_text)));
        all.truncate(limit);
        all
    }

    fn bucket(&self, arrival: i64) -> usize {
        let minutes = self.clocks.now.saturating_sub(arrival) / 60;
        AGE_LIMITS.iter().position(|limit| minutes < *limit).unwrap_or(AGE_LIMITS.len())
    }
}

/// A domain in the form in which it is counted, in which nearly all are written already.
fn in_lower_case(domain: &str) -> Cow<'_, str> {
    if domain.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(domain.to_ascii_lowercase())
    } else {
        Cow::Borrowed(domain)
    }
}

/// Counters by name, up to the limits above, and one for all other names.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Counters<V> {
    named: HashMap<String, V>,
    other: V,
    /// The length of all names together, in bytes.
    length: usize,
}

impl<V: Tally> Counters<V> {
    /// The counter for `name`, which may be new. Where the name is too long to be kept, this is the counter of the
    /// others.
    fn of(&mut self, name: &str) -> &mut V {
        if name.len() > LONGEST_NAME {
            return &mut self.other;
        }
        let is_full = self.named.len() >= DISTINCT_LIMIT || self.length + name.len() > NAMES_LIMIT;
        if is_full && !self.named.contains_key(name) {
            self.keep_the_larger_half();
        }
        match self.named.entry_ref(name) {
            EntryRef::Occupied(known) => known.into_mut(),
            EntryRef::Vacant(place) => {
                self.length += name.len();
                place.insert(V::default())
            }
        }
    }

    fn keep_the_larger_half(&mut self) {
        let mut all: Vec<_> = self.named.drain().collect();
        let half = all.len() / 2;
        all.select_nth_unstable_by(half, |(a_name, a), (b_name, b)| {
            b.recipients().cmp(&a.recipients()).then_with(|| a_name.cmp(b_name))
        });
        for (_, smaller) in all.drain(half..) {
            self.other.merge(&smaller);
        }
        self.length = all.iter().map(|(name, _)| name.len()).sum();
        self.named.extend(all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{Plan, Recipient};

    fn message(arrival: i64, recipients: &[(&str, &str)]) -> Message<'static> {
        Message {
            id: "1".into(),
            state: State::Deferred,
            mta_state: "deferred".into(),
            being_returned: false,
            too_young: false,
            instance: None,
            size: Some(100),
            arrival: Some(arrival),
            sender: None,
            recipients: recipients
                .iter()
                .map(|(address, reason)| Recipient {
                    address: address.to_string().into(),
                    reason: (!reason.is_empty()).then(|| reason.to_string().into()),
                    delivered: false,
                    last_attempt: None,
                })
                .collect(),
            plan: Plan::default(),
        }
    }

    #[test]
    fn totals_and_the_oldest_message_are_counted() {
        let mut summary = Summary::new(10_000);
        summary.add(&message(9_000, &[("a@example.com", "full"), ("b@EXAMPLE.com", "full"), ("c@other.example", "")]));
        summary.add(&message(8_000, &[("a@example.com", "down")]));
        assert_eq!((summary.messages, summary.recipients, summary.bytes()), (2, 4, Some(200)));
        assert_eq!(summary.oldest, Some(8_000));
        assert_eq!(summary.state(State::Deferred), 2);
        let destinations = summary.destinations(100);
        assert_eq!(destinations[0].domain.as_deref(), Some("example.com"));
        assert_eq!((destinations[0].recipients, destinations[0].messages), (3, 2));
        assert_eq!(destinations[0].ages, [0, 0, 2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(summary.reasons(1)[0], Reason { reason: Some("full".into()), recipients: 2 });
        assert_eq!(summary.reasons(1)[1], Reason { reason: None, recipients: 1 });
    }

    #[test]
    fn memory_is_bounded_and_nothing_is_dropped_silently() {
        let mut summary = Summary::new(0);
        for n in 0..DISTINCT_LIMIT + 500 {
            summary.add(&message(0, &[(&format!("a@d{n}.example"), &format!("reason {n}"))]));
        }
        assert!(summary.destinations.named.len() <= DISTINCT_LIMIT);
        let destinations = summary.destinations(100);
        assert_eq!(destinations.len(), 101);
        assert_eq!(destinations.iter().map(|d| d.recipients).sum::<u64>(), summary.recipients);
        assert_eq!(summary.reasons(10).iter().map(|r| r.recipients).sum::<u64>(), summary.recipients);
    }

    #[test]
    fn a_frequent_reason_is_found_behind_any_number_of_others() {
        let mut summary = Summary::new(0);
        for n in 0..DISTINCT_LIMIT * 3 {
            summary.add(&message(0, &[(&format!("a@junk{n}.example"), &format!("junk {n}"))]));
            if n % 3 == 0 {
                summary.add(&message(0, &[("a@example.org", "often")]));
            }
        }
        (0..5000).for_each(|_| summary.add(&message(0, &[("a@example.com", "Connection refused")])));
        let domains: Vec<_> = summary.destinations(2).into_iter().map(|of| (of.domain, of.recipients)).collect();
        assert_eq!(domains[0], (Some("example.com".into()), 5000));
        assert_eq!(domains[1], (Some("example.org".into()), DISTINCT_LIMIT as u64), "never among the smaller half");
        assert_eq!(summary.reasons(1)[0].reason.as_deref(), Some("Connection refused"));
        assert_eq!(summary.destinations(100).iter().map(|of| of.recipients).sum::<u64>(), summary.recipients);
        assert_eq!(summary.reasons(100).iter().map(|of| of.recipients).sum::<u64>(), summary.recipients);
    }

    #[test]
    fn long_reasons_take_no_more_room_than_short_ones() {
        let mut summary = Summary::new(0);
        for long in ["x".repeat(LONGEST_NAME - 10), "x".repeat(LONGEST_NAME + 10)] {
            for n in 0..40 {
                summary.add(&message(0, &[("a@example.com", &format!("{n} {long}"))]));
                assert!(summary.reasons.named.keys().map(String::len).sum::<usize>() <= NAMES_LIMIT);
            }
        }
        assert_eq!(summary.reasons(10).iter().map(|r| r.recipients).sum::<u64>(), 80);
    }

    #[test]
    fn an_unknown_size_is_not_zero_and_an_unknown_age_is_not_young() {
        let mut summary = Summary::new(0);
        summary.add(&Message { size: None, arrival: None, ..message(0, &[("a@example.com", "")]) });
        assert_eq!((summary.bytes(), summary.oldest), (None, None));
        assert_eq!(summary.destinations(1)[0].ages, [0; 10]);
        assert_eq!(Summary::new(0).bytes(), Some(0), "an empty queue");
    }

    #[test]
    fn a_delivered_recipient_no_longer_waits() {
        let mut summary = Summary::new(0);
        let mut one = message(0, &[("a@example.com", ""), ("b@example.com", "")]);
        one.recipients[0].delivered = true;
        summary.add(&one);
        assert_eq!((summary.messages, summary.recipients, summary.delivered), (1, 1, 1));
    }

    #[test]
    fn a_summary_says_the_same_after_it_was_sent_to_another_process() {
        let mut summary = Summary::new(10_000);
        for n in 0..DISTINCT_LIMIT as i64 + 500 {
            let reason = if n % 3 == 0 { "Connection refused" } else { "450 not now" };
            summary.add(&message(n, &[(&format!("a@d{}.example", n % 3000), reason), ("b@EXAMPLE.com", "Ünknown…")]));
        }
        summary.add(&Message { size: None, state: State::Held, ..message(0, &[("root", "")]) });
        let text = serde_json::to_string(&summary).unwrap();
        let mut sent: Summary = serde_json::from_str(&text).unwrap();
        let says = |summary: &Summary| {
            (
                (summary.messages, summary.recipients, summary.delivered, summary.oldest, summary.cut),
                (summary.bytes(), State::ALL.map(|state| (summary.state(state), summary.recipients_in(state)))),
                (summary.destinations(5000), summary.reasons(5000), summary.reason_patterns(5000)),
            )
        };
        assert_eq!(says(&sent), says(&summary));
        assert!(says(&sent).2.0.iter().any(|destination| destination.cause.is_some()));
        for summary in [&mut sent, &mut summary] {
            summary.add(&message(1, &[("c@new.example", "new")]));
        }
        assert_eq!(says(&sent), says(&summary), "it goes on counting");
    }
}
