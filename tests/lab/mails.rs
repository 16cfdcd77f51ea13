//! The mails that come in while the primary is down: ordinary ones and those that break queue pages.

/// The text of all mails.
pub const LINE: &str = "I would prefer not to.";

/// One mail.
#[derive(Clone, Debug)]
pub struct Mail {
    /// What it is, and its subject, by which it is known again.
    pub subject: &'static str,
    /// The envelope sender; empty is the null sender.
    pub sender: String,
    /// The envelope's recipients.
    pub recipients: Vec<String>,
    /// How often its text says [`LINE`].
    pub lines: usize,
    /// Whether its envelope needs SMTPUTF8.
    pub utf8: bool,
}

impl Mail {
    /// A small mail.
    pub fn new(subject: &'static str, sender: &str, recipients: &[&str]) -> Mail {
        let recipients = recipients.iter().map(|&address| address.to_owned()).collect();
        Mail { subject, sender: sender.to_owned(), recipients, lines: 8, utf8: false }
    }
}

/// A mail of every kind, with and without SMTPUTF8.
pub fn varied(utf8: bool) -> Vec<Mail> {
    let long_sender =
        format!("{}@{}example.org", "long-local-part.".repeat(4).trim_end_matches('.'), "long-label.".repeat(14));
    let long_recipient = format!("{}@example.com", "x".repeat(60));
    let international = if utf8 {
        Mail { utf8, ..Mail::new("international", "grüße@bücher.example", &["用户@example.com"]) }
    } else {
        Mail::new("no SMTPUTF8", "gruesse@buecher.example", &["yonghu@example.com"])
    };
    vec![
        Mail::new("plain", "alice@example.org", &["larry@example.com"]),
        Mail::new(
            "three recipients",
            "bob@example.net",
            &["larry@example.com", "curly@example.com", "moe@example.com"],
        ),
        Mail::new("null sender", "", &["postmaster@example.com"]),
        Mail::new("long addresses", &long_sender, &[&long_recipient]),
        Mail::new("quoted", r#""spaces and <brackets>"@example.org"#, &[r#""john \"jb\" doe"@example.com"#]),
        Mail::new(
            "markup",
            r#""<script>alert(1)</script>"@example.org"#,
            &[r#""<img src=x onerror=alert(2)>"@example.com"#],
        ),
        Mail::new("punctuation", "o'brien&sons@example.org", &["a+b=c&d@example.com"]),
        international,
        Mail { lines: 300_000 / LINE.len(), ..Mail::new("big", "big@example.org", &["larry@example.com"]) },
        Mail::new(
            "partly deferred",
            "carol@example.org",
            &["slow@example.com", "larry@example.com", "full@example.com"],
        ),
        Mail::new("other next hop", "dave@example.org", &["user@other.example"]),
        Mail::new("subdomain", "list-owner+larry=example.com@lists.example.org", &["larry@sub.example.com"]),
    ]
}
