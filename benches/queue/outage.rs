//! Why mail waits in a real outage: many hosts, of which some do not answer, some refuse, and some answer at length.

/// Hosts, each with an address of its own.
const HOSTS: u32 = 300;

/// What becomes of an attempt.
#[derive(Clone, Copy)]
enum Fate {
    TimedOut,
    /// It was not even tried: the host has just failed to answer another message.
    Suspended,
    Refused,
    Unreachable,
    BrokenOff,
    NoName,
    Greylisted,
    GreylistedForMinutes,
    Full,
    Busy,
    /// Turned away by the greeting, for good: the mail waits all the same.
    Blocked,
}

/// Of twenty attempts.
const FATES: [Fate; 20] = [
    Fate::TimedOut,
    Fate::Refused,
    Fate::Greylisted,
    Fate::TimedOut,
    Fate::Suspended,
    Fate::Busy,
    Fate::Refused,
    Fate::TimedOut,
    Fate::GreylistedForMinutes,
    Fate::Unreachable,
    Fate::Refused,
    Fate::Full,
    Fate::TimedOut,
    Fate::Suspended,
    Fate::Blocked,
    Fate::Refused,
    Fate::BrokenOff,
    Fate::Greylisted,
    Fate::Busy,
    Fate::NoName,
];

/// The last attempt of one message.
pub struct Attempt {
    number: u32,
    fate: Fate,
    host: u32,
}

impl Attempt {
    /// That of the message with this number. Every host meets every fate.
    pub fn of(number: u32) -> Attempt {
        let host = number % HOSTS;
        Attempt { number, fate: FATES[(number / HOSTS * 7 + number) as usize % FATES.len()], host }
    }

    /// The domain that it is for.
    pub fn domain(&self) -> String {
        format!("department{}.example.com", self.host)
    }

    fn name(&self) -> String {
        format!("mx{}.{}", self.host % 3 + 1, self.domain())
    }

    /// One of the addresses of RFC 5737.
    fn address(&self) -> String {
        let network = ["192.0.2", "198.51.100", "203.0.113"][(self.host / 100) as usize % 3];
        format!("{network}.{}", self.host % 100 + 100)
    }

    /// What the host replied, line by line, where it did.
    fn reply(&self, recipient: &str) -> Option<Vec<String>> {
        let (number, minutes, seconds) = (self.number, self.number % 5, self.number % 60);
        Some(match self.fate {
            Fate::Greylisted => vec![format!(
                "450 4.2.0 <{recipient}>: Recipient address rejected: Greylisted, see \
                 http://postgrey.example.net/help/{}.html",
                self.domain()
            )],
            Fate::GreylistedForMinutes => vec![format!(
                "451 4.7.1 <{recipient}>: Greylisting in action, please come back in 00:0{minutes}:{seconds:02}"
            )],
            Fate::Full => vec![
                "452-4.2.2 The email account that you tried to reach is over quota. Please direct".into(),
                "452-4.2.2 the recipient to".into(),
                format!(
                    "452 4.2.2  https://support.example.net/mail/?p=OverQuotaTemp d9{number:x}si48e67c5.{} - smtp",
                    number % 977
                ),
            ],
            Fate::Busy => vec![format!(
                "421 4.7.0 [TSS04] Messages from 192.0.2.25 temporarily deferred due to unexpected volume or user \
                 complaints - 4.16.55.1; see https://postmaster.{}/error-codes",
                self.domain()
            )],
            Fate::Blocked => vec![format!(
                "554-{} 554 5.7.1 Your access to this mail system has been rejected due to the sending MTA's poor \
                 reputation. If you believe that this failure is in error, please contact the intended recipient via \
                 alternate means.",
                self.name()
            )],
            _ => return None,
        })
    }

    /// The reason in Postfix's words (smtp_connect.c, smtp_proto.c, smtp_trouble.c).
    pub fn for_postfix(&self, recipient: &str) -> String {
        let peer = format!("{}[{}]", self.name(), self.address());
        let connect = |why: &str| format!("connect to {peer}:25: {why}");
        let reply = self.reply(recipient).unwrap_or_default().join(" ");
        match self.fate {
            Fate::TimedOut => connect("Connection timed out"),
            Fate::Suspended => format!("delivery temporarily suspended: {}", connect("Connection timed out")),
            Fate::Refused => connect("Connection refused"),
            Fate::Unreachable => connect("No route to host"),
            Fate::BrokenOff => format!("lost connection with {peer} while receiving the initial server greeting"),
            Fate::NoName => format!(
                "Host or domain name not found. Name service error for name={} type=MX: Host not found, try again",
                self.domain()
            ),
            Fate::Busy | Fate::Blocked => format!("host {peer} refused to talk to me: {reply}"),
            Fate::Greylisted | Fate::GreylistedForMinutes | Fate::Full => {
                format!("host {peer} said: {reply} (in reply to RCPT TO command)")
            }
        }
    }

    /// The same in sendmail's words (errstring.c, deliver.c), of which it prints 100 bytes.
    pub fn for_sendmail(&self, recipient: &str) -> String {
        let name = self.name();
        let mut reason = match self.fate {
            Fate::TimedOut | Fate::Suspended => format!("Deferred: Connection timed out with {name}."),
            Fate::Refused => format!("Deferred: Connection refused by {name}."),
            Fate::Unreachable => "Deferred: No route to host".into(),
            Fate::BrokenOff => format!("Deferred: Connection reset by {name}."),
            Fate::NoName => format!("Deferred: Name server: {name}.: host name lookup failure"),
            _ => format!("Deferred: {}", self.reply(recipient).unwrap_or_default().swap_remove(0)),
        };
        reason.truncate(100);
        reason
    }

    /// The same in OpenSMTPD's words (mta.c): a reply as it is, and no host.
    pub fn for_opensmtpd(&self, recipient: &str) -> String {
        match self.fate {
            Fate::TimedOut | Fate::Suspended | Fate::Refused | Fate::Unreachable => {
                "Network error on destination MXs".into()
            }
            Fate::BrokenOff => "Connection closed unexpectedly".into(),
            Fate::NoName => "Temporary failure in MX lookup".into(),
            _ => self.reply(recipient).unwrap_or_default().join(" "),
        }
    }
}
