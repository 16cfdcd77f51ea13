//! `bartleby.toml`: every setting has a default, and every mistake is an error.

mod trust;

mod disk;
mod lifetime;
mod networks;
mod notify;
mod primary;
mod words;

use std::env;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de};

use crate::mta::Kind;
use crate::queue::Mask;
use crate::text::printable;
pub use disk::{DiskConfig, Threshold};
pub use lifetime::LifetimeConfig;
pub use notify::NotifyConfig;
pub use primary::PrimaryConfig;

/// The file that is read when `BARTLEBY_CONFIG` names no other; it need not be there.
pub(crate) const DEFAULT_PATH: &str = "/etc/bartleby.toml";

/// The whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `[mta]`
    pub mta: MtaConfig,
    /// `[flush]`
    pub flush: FlushConfig,
    /// `[access]`
    pub access: AccessConfig,
    /// `[disk]`
    pub disk: DiskConfig,
    /// `[primary]`
    pub primary: PrimaryConfig,
    /// `[notify]`
    pub notify: NotifyConfig,
    /// `[privacy]`
    pub privacy: PrivacyConfig,
    /// `[state]`
    pub state: StateConfig,
    /// The file that this was read from; `None` where there is none.
    #[serde(skip)]
    pub file: Option<PathBuf>,
}

/// `[mta]`: the mail server.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MtaConfig {
    /// Its kind; by default it is found.
    #[serde(deserialize_with = "readable")]
    pub(crate) kind: Option<Kind>,
    /// The command that lists the queue in `kind`'s format; empty: the mail server's own.
    pub(crate) list_command: Vec<String>,
    /// The command that runs the queue; empty: the mail server's own.
    pub(crate) flush_command: Vec<String>,
    /// How long a listing may take: more than zero, at most a day.
    #[serde(deserialize_with = "deadline")]
    pub deadline: Duration,
    /// How long the mail server keeps mail; by default its own configuration says so.
    #[serde(deserialize_with = "lifetime::read")]
    pub(crate) lifetime: Option<LifetimeConfig>,
    /// The file in which it logs; by default it is found.
    #[serde(deserialize_with = "folder")]
    pub(crate) log: Option<PathBuf>,
    /// A name for this queue on the page, so that a recorded sample is not taken for the real queue.
    pub(crate) label: Option<String>,
}

impl Default for MtaConfig {
    fn default() -> Self {
        MtaConfig {
            kind: None,
            list_command: Vec::new(),
            flush_command: Vec::new(),
            deadline: Duration::from_secs(20),
            lifetime: None,
            log: None,
            label: None,
        }
    }
}

/// `[flush]`: running the queue.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FlushConfig {
    /// The least time between two runs, at most a day.
    #[serde(deserialize_with = "duration")]
    pub(crate) cooldown: Duration,
    /// Whether the primary is asked for some of the recipients before a run.
    pub(crate) rehearse: bool,
}

impl Default for FlushConfig {
    fn default() -> Self {
        FlushConfig { cooldown: Duration::from_secs(30), rehearse: true }
    }
}

/// `[access]`: the clients that are let in where the web server did not decide.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessConfig {
    /// Networks and single addresses.
    #[serde(deserialize_with = "networks::read")]
    pub allow: Vec<IpNet>,
    /// Names by which browsers may call the page, besides those that pass by themselves.
    #[serde(deserialize_with = "host_names")]
    pub hosts: Vec<String>,
    /// Whether a proxy on this machine is trusted to let in only whom it should.
    pub proxy: bool,
}

impl Default for AccessConfig {
    fn default() -> Self {
        AccessConfig {
            allow: ["127.0.0.0/8", "::1"].into_iter().filter_map(|text| networks::network(text).ok()).collect(),
            hosts: Vec::new(),
            proxy: false,
        }
    }
}

/// `[privacy]`: which parts of addresses are hidden.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrivacyConfig {
    /// The hidden part, for a screen that many people see.
    pub(crate) mask: Option<Mask>,
}

/// `[state]`: what is remembered between requests.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StateConfig {
    /// The folder, an absolute path; default: the first usable of several.
    #[serde(deserialize_with = "folder")]
    pub(crate) directory: Option<PathBuf>,
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text =
        String::deserialize(from).map_err(|_| de::Error::custom("write a duration such as \"20s\" or \"2m\""))?;
    let wrong = || de::Error::custom(format!("“{text}” is no duration such as \"20s\" or \"2m\""));
    let span: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    let span = Duration::try_from(span).map_err(|_| wrong())?;
    if span > LONGEST { Err(de::Error::custom(format!("“{text}” is longer than a day"))) } else { Ok(span) }
}

/// The longest duration that any setting may have.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// A mail server whose queue is read.
fn readable<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Kind>, D::Error> {
    let word = String::deserialize(from)?;
    let words = || Kind::readable().map(Kind::word).collect::<Vec<_>>().join(", ");
    let unknown =
        || de::Error::custom(format!("“{word}” is no mail server whose queue is read; those are {}", words()));
    Kind::readable().find(|kind| kind.word() == word).map(Some).ok_or_else(unknown)
}

/// A duration that is not zero.
fn deadline<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let span = duration(from)?;
    if span.is_zero() { Err(de::Error::custom("a listing takes some time: not 0")) } else { Ok(span) }
}

fn folder<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(from)?;
    let wrong = || de::Error::custom(format!("“{}” is no absolute path", path.display()));
    if path.is_absolute() { Ok(Some(path)) } else { Err(wrong()) }
}

/// A host's name as it is written in the file.
#[derive(Deserialize)]
struct WrittenName(#[serde(deserialize_with = "host_name")] String);

fn host_names<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Ok(Vec::<WrittenName>::deserialize(from)?.into_iter().map(|WrittenName(name)| name).collect())
}

fn host_name<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let name = String::deserialize(from)?;
    let wrong = || de::Error::custom(format!("“{name}” is no host name such as \"queue.example.com\""));
    if is_name(&name) && name.parse::<IpAddr>().is_err() { Ok(name) } else { Err(wrong()) }
}

/// Whether this may be a host's name: dots, and letters, digits, `-` and `_` between them (RFC 1123, section 2.1, and
/// what people use besides), at most 253 characters (RFC 1035, section 2.3.4).
pub(crate) fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

/// A configuration that can't be used: which file, which line, which key, and why.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub struct ConfigError {
    file: PathBuf,
    line: Option<usize>,
    key: Option<String>,
    message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(to, ", line {line}")?;
        }
        if let Some(key) = &self.key {
            write!(to, ", {}", printable(key))?;
        }
        write!(to, ": {}", printable(&self.message))
    }
}

impl ConfigError {
    /// Something that is wrong with the file itself.
    fn of_file(file: &Path, message: String) -> ConfigError {
        ConfigError { file: file.into(), line: None, key: None, message }
    }

    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self.line {
            Some(_) => "Correct that line.".into(),
            None => "Look whether the file is there and whether the web server's user may read it: namei -l shows the \
                     owner and the rights of the file and of each folder above it."
                .into(),
        }
    }
}

impl Config {
    /// Reads the file that `BARTLEBY_CONFIG` names, else `/etc/bartleby.toml` if it is there.
    ///
    /// # Errors
    /// The file can't be read, something in it is unknown or wrong, or this is root and another user could change it.
    pub fn load() -> Result<Config, ConfigError> {
        match env::var_os("BARTLEBY_CONFIG").filter(|path| !path.is_empty()) {
            Some(named) => Config::vetted(Path::new(&named)),
            None => Config::of_machine(),
        }
    }

    fn of_machine() -> Result<Config, ConfigError> {
        let file = Path::new(DEFAULT_PATH);
        let is_missing = fs::symlink_metadata(file).is_err_and(|error| error.kind() == ErrorKind::NotFound);
        if is_missing { Ok(Config::default()) } else { Config::vetted(file) }
    }

    fn vetted(file: &Path) -> Result<Config, ConfigError> {
        trust::vet(file)?;
        Config::read(file)
    }

    /// Reads one file.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn read(file: &Path) -> Result<Config, ConfigError> {
        let unread = |error| ConfigError::of_file(file, format!("it can't be read: {error}"));
        let config = Config::from_bytes(&fs::read(file).map_err(unread)?, file)?;
        // The path is made absolute, as the program leaves its working directory.
        let absolute = std::path::absolute(file).unwrap_or_else(|_| file.into());
        Ok(Config { file: Some(absolute), ..config })
    }

    /// Reads the content of that file.
    ///
    /// # Errors
    /// Something in it is unknown or wrong.
    pub fn from_bytes(bytes: &[u8], file: &Path) -> Result<Config, ConfigError> {
        let text = str::from_utf8(bytes).map_err(|error| ConfigError {
            file: file.into(),
            line: Some(bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1),
            key: None,
            message: "it holds a byte that is no UTF-8".into(),
        })?;
        Config::parse(text, file)
    }

    fn parse(text: &str, file: &Path) -> Result<Config, ConfigError> {
        let wrong = |error: &toml::de::Error, key: Option<String>| {
            let line = error.span().map(|span| line_of(text, span.start.min(text.len())));
            let message = words::plain(&error.message().lines().collect::<Vec<_>>().join(" "));
            ConfigError { file: file.into(), line, key: key.or_else(|| section_at(text, line?)), message }
        };
        let source = toml::Deserializer::parse(text).map_err(|error| wrong(&error, None))?;
        let config: Config =
            serde_path_to_error::deserialize(source).map_err(|error| wrong(error.inner(), key(error.path())))?;
        config.disk.compare(text, file)?;
        Ok(config)
    }
}

/// A path of the TOML document as `[section] key`.
fn key(path: &serde_path_to_error::Path) -> Option<String> {
    let path = path.to_string();
    match path.split_once('.') {
        Some((section, key)) => Some(format!("[{section}] {key}")),
        None => (path != ".").then(|| format!("[{path}]")),
    }
}

/// The number of the line that holds byte `at`, from 1.
fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// The number of the line in which a key of this section is set.
fn line_of_key(text: &str, section: &str, key: &str) -> Option<usize> {
    let sets = |(at, line): (usize, &str)| {
        let (name, _) = line.split_once('=')?;
        let (name, number) = (name.trim(), at + 1);
        let is_there =
            name == format!("{section}.{key}") || (name == key && section_at(text, number)? == format!("[{section}]"));
        is_there.then_some(number)
    };
    text.lines().enumerate().find_map(sets)
}

/// The section that a line stands in.
fn section_at(text: &str, line: usize) -> Option<String> {
    let lines: Vec<&str> = text.lines().take(line).collect();
    let section = lines.iter().rev().find(|line| line.trim_start().starts_with('['))?;
    Some(section.split('#').next()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("/etc/bartleby.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_file_is_the_defaults() {
        let config = parse("").unwrap();
        assert_eq!(config, Config::default());
        assert_eq!(config.mta.deadline, Duration::from_secs(20));
        assert_eq!(config.flush.cooldown, Duration::from_secs(30));
        assert_eq!(config.access.allow.len(), 2);
        assert_eq!(config.disk.critical, Threshold::Percent(5.0));
    }

    #[test]
    fn everything_can_be_set() {
        let config = parse(
            r#"
            [mta]
            kind = "sendmail"
            list_command = ["sudo", "-n", "/usr/sbin/sendmail", "-bp"]
            flush_command = ["sudo", "-n", "/usr/sbin/sendmail", "-q"]
            deadline = "1m30s"
            lifetime = "5d"
            label = "sample"
            [flush]
            cooldown = "0s"
            [access]
            allow = ["192.0.2.0/24", "2001:db8::1"]
            [disk]
            warn = "2GiB"
            critical = "500 MB"
            [primary]
            hosts = ["tuccster.example.com:25"]
            domains = ["example.com"]
            [notify]
            command = ["/usr/local/bin/tell", "larry"]
            [state]
            directory = "/srv/bartleby"
            "#,
        )
        .unwrap();
        assert_eq!(config.mta.kind, Some(Kind::Sendmail));
        assert_eq!(config.mta.deadline, Duration::from_secs(90));
        assert_eq!(config.mta.lifetime, Some(LifetimeConfig { seconds: 432_000, written: "5d".into() }));
        assert_eq!(config.flush.cooldown, Duration::ZERO);
        assert_eq!(config.access.allow[1].to_string(), "2001:db8::1/128");
        assert_eq!(config.disk.warn, Threshold::Bytes(2 << 30));
        assert_eq!(config.disk.critical, Threshold::Bytes(500_000_000));
        assert_eq!(config.state.directory, Some("/srv/bartleby".into()));
    }

    #[test]
    fn what_is_wrong_is_named_with_file_line_and_key() {
        for (text, expected) in [
            (
                "[mta]\nkind = \"qmail\"\n",
                "/etc/bartleby.toml, line 2, [mta] kind: “qmail” is no mail server whose queue is read",
            ),
            (
                "[mta]\nkind = \"dma\"\n",
                "line 2, [mta] kind: “dma” is no mail server whose queue is read; those are postfix, sendmail, exim, opensmtpd",
            ),
            (
                "[mta]\n\nkinds = \"x\"\n",
                "/etc/bartleby.toml, line 3, [mta] kinds: there is no `kinds` here; what there is: kind, ",
            ),
            ("[fush]\n", "/etc/bartleby.toml, line 1, [fush]: there is no `fush` here"),
            ("[flush]\ncooldown = \"soon\"\n", "line 2, [flush] cooldown: “soon” is no duration"),
            ("[flush]\ncooldown = \"-5s\"\n", "line 2, [flush] cooldown: “-5s” is no duration"),
            ("[mta]\ndeadline = \"9223372036854775807s\"\n", "line 2, [mta] deadline: "),
            ("[mta]\ndeadline = \"25h\"\n", "line 2, [mta] deadline: “25h” is longer than a day"),
            ("[mta]\ndeadline = \"0s\"\n", "line 2, [mta] deadline: a listing takes some time"),
            ("[mta]\nlifetime = \"5\"\n", "line 2, [mta] lifetime: “5” is no time such as \"5d\""),
            ("[mta]\nlifetime = \"0d\"\n", "line 2, [mta] lifetime: “0d” is no time"),
            ("[mta]\nlifetime = 5\n", "line 2, [mta] lifetime: write a time such as"),
            ("[state]\ndirectory = \"x/y\"\n", "line 2, [state] directory: “x/y” is no absolute path"),
            ("[flush]\ncooldown = 30\n", "line 2, [flush] cooldown: write a duration such as \"20s\""),
            ("[access]\nallow = [\"office\"]\n", "line 2, [access] allow[0]: “office” is neither"),
            (
                "[access]\nhosts = [\"a.example\", \"b:80\"]\n",
                "line 2, [access] hosts[1]: “b:80” is no host name such as",
            ),
            ("[access]\nhosts = [\"*.example.com\"]\n", "line 2, [access] hosts[0]: “*.example.com” is no host name"),
            ("[access]\nhosts = [\"192.0.2.1\"]\n", "line 2, [access] hosts[0]: “192.0.2.1” is no host name"),
            ("[access]\nhosts = \"a.example\"\n", "line 2, [access] hosts: a list such as"),
            ("[access]\nproxy = \"yes\"\n", "line 2, [access] proxy: true or false is expected here"),
            ("[disk]\nwarn = \"lots\"\n", "line 2, [disk] warn: “lots” is neither"),
            ("[disk]\nwarn = \"150%\"\n", "line 2, [disk] warn: “150%” is neither"),
            ("flush.cooldown = \"soon\"\n", "line 1, [flush] cooldown: “soon” is no duration"),
            ("access = { allow = [\"x\"] }\n", "line 1, [access] allow[0]: “x” is neither"),
            ("mta = 5\n", "line 1, [mta]: a section with keys is expected here, not the number 5"),
            (
                "[access]\nallow = \"::1\"\n",
                "line 2, [access] allow: a list such as [\"a\", \"b\"] is expected here, not",
            ),
            ("[privacy]\nmask = \"all\"\n", "line 2, [privacy] mask: `all` is not possible; what is: local-part"),
            ("[disk]\nwarn = \"15\"\n", "line 2, [disk] warn: “15” has no unit: write \"15%\""),
            ("[disk]\nwarn = \"3%\"\n", "line 2, [disk] warn: warn (3%) is less than critical (5%)"),
            ("[disk]\n\ncritical = \"20%\"\n", "line 3, [disk] critical: warn (15%) is less than critical (20%)"),
            ("[primary]\nhosts = [\"h:smtp\"]\n", "line 2, [primary] hosts[0]: “h:smtp” is no host"),
            (
                "[primary]\nhosts = [\n\"::1\", \"[::1]:25\",\n\"h:0\"]\n",
                "line 4, [primary] hosts[2]: “h:0” is no host",
            ),
            (
                "[mta]\nlist_command = [\n \"a\",\n 5,\n]\n",
                "line 4, [mta] list_command[1]: a text in quotes is expected here, not the number 5",
            ),
            ("[access]\nallow = [\n \"::1\",\n \"x\",\n]\n", "line 4, [access] allow[1]: “x” is neither"),
            ("[notify]\ncommand = []\n", "line 2, [notify] command: a command has at least one word"),
            ("[notify]\ncommand = [\"./tell\"]\n", "line 2, [notify] command: “./tell” is no program"),
            ("[notify]\ncommand = \"logger\"\n", "line 2, [notify] command: a list such as"),
            ("[notify]\n\nurl = \"x\"\n", "line 3, [notify] url: there is no `url` here"),
            ("[mta\n", "line 1"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_named_must_be_there() {
        let error = Config::read(Path::new("/nonexistent/bartleby.toml")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/bartleby.toml: it can't be read: No such file"), "{error}");
        assert!(!error.remedy().contains("line") && error.remedy().contains("namei -l"), "{}", error.remedy());
    }
}
