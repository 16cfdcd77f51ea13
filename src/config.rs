//! `bartleby.toml`: everything in it has a default, and nothing in it is guessed at.

use std::env;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de};

use crate::mta::Kind;
use crate::queue::Mask;
use crate::system::{Untrusted, read_roots};
use crate::text::printable;

/// The file that is read when `BARTLEBY_CONFIG` names no other; it need not be there.
pub const DEFAULT_PATH: &str = "/etc/bartleby.toml";

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
    /// Which one; default: found out.
    #[serde(deserialize_with = "readable")]
    pub kind: Option<Kind>,
    /// The command that lists the queue in `kind`'s format; empty: the mail server's own.
    pub list_command: Vec<String>,
    /// The command that runs the queue; empty: the mail server's own.
    pub flush_command: Vec<String>,
    /// How long a listing may take: more than nothing, at most a day.
    #[serde(deserialize_with = "deadline")]
    pub deadline: Duration,
    /// What the page calls this queue; for a recorded sample that must not be taken for the real one.
    pub label: Option<String>,
}

impl Default for MtaConfig {
    fn default() -> Self {
        MtaConfig {
            kind: None,
            list_command: Vec::new(),
            flush_command: Vec::new(),
            deadline: Duration::from_secs(20),
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
    pub cooldown: Duration,
}

impl Default for FlushConfig {
    fn default() -> Self {
        FlushConfig { cooldown: Duration::from_secs(30) }
    }
}

/// `[access]`: who is let in where the web server did not decide.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessConfig {
    /// Networks and single addresses.
    #[serde(deserialize_with = "networks")]
    pub allow: Vec<IpNet>,
}

impl Default for AccessConfig {
    fn default() -> Self {
        AccessConfig { allow: ["127.0.0.0/8", "::1"].into_iter().filter_map(|text| network(text).ok()).collect() }
    }
}

/// `[disk]`: when a filesystem is short of space or inodes.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiskConfig {
    /// Less free than this is a warning.
    pub warn: Threshold,
    /// Less free than this is critical.
    pub critical: Threshold,
}

impl Default for DiskConfig {
    fn default() -> Self {
        DiskConfig { warn: Threshold::Percent(15.0), critical: Threshold::Percent(5.0) }
    }
}

/// `[primary]`: the server that this one stands in for.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrimaryConfig {
    /// `host:port` of each primary.
    pub hosts: Vec<String>,
    /// The domains whose mail is spooled here.
    pub domains: Vec<String>,
}

/// `[privacy]`: what is not shown of addresses.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrivacyConfig {
    /// What is hidden, for a screen that many see.
    pub mask: Option<Mask>,
}

/// `[state]`: what is remembered between requests.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StateConfig {
    /// The folder, an absolute path; default: the first usable of several.
    #[serde(deserialize_with = "folder")]
    pub directory: Option<PathBuf>,
}

/// An amount of free space: a share of the whole, or bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Threshold {
    /// 0 to 100.
    Percent(f64),
    /// Bytes; says nothing about inodes.
    Bytes(u64),
}

impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("“{text}” is neither a percentage such as \"15%\" nor a size such as \"2GiB\"");
        if let Some(number) = text.strip_suffix('%') {
            let percent: f64 = number.trim().parse().map_err(|_| wrong())?;
            return if (0.0..=100.0).contains(&percent) { Ok(Threshold::Percent(percent)) } else { Err(wrong()) };
        }
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let factor: u64 = match unit.trim() {
            "" | "B" => 1,
            "KiB" | "K" => 1 << 10,
            "MiB" | "M" => 1 << 20,
            "GiB" | "G" => 1 << 30,
            "TiB" | "T" => 1 << 40,
            "kB" | "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "TB" => 1_000_000_000_000,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        number.checked_mul(factor).map(Threshold::Bytes).ok_or_else(wrong)
    }
}

impl<'de> Deserialize<'de> for Threshold {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text =
        String::deserialize(from).map_err(|_| de::Error::custom("write a duration such as \"20s\" or \"2m\""))?;
    let wrong = || de::Error::custom(format!("“{text}” is no duration such as \"20s\" or \"2m\""));
    let span: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    let span = Duration::try_from(span).map_err(|_| wrong())?;
    if span > LONGEST { Err(de::Error::custom(format!("“{text}” is longer than a day"))) } else { Ok(span) }
}

/// Nothing here may last longer.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// A mail server whose queue is read.
fn readable<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Kind>, D::Error> {
    let word = String::deserialize(from)?;
    let words = || Kind::readable().map(|kind| format!("`{}`", kind.word())).collect::<Vec<_>>().join(", ");
    let unknown = || de::Error::custom(format!("unknown variant `{word}`, expected one of {}", words()));
    Kind::readable().find(|kind| kind.word() == word).map(Some).ok_or_else(unknown)
}

/// A duration that is not nothing.
fn deadline<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let span = duration(from)?;
    if span.is_zero() { Err(de::Error::custom("a listing takes some time: not 0")) } else { Ok(span) }
}

fn folder<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(from)?;
    let wrong = || de::Error::custom(format!("“{}” is no absolute path", path.display()));
    if path.is_absolute() { Ok(Some(path)) } else { Err(wrong()) }
}

/// A network as it is written in the file.
#[derive(Deserialize)]
struct Written(#[serde(deserialize_with = "one_network")] IpNet);

fn networks<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
    Ok(Vec::<Written>::deserialize(from)?.into_iter().map(|Written(network)| network).collect())
}

fn one_network<'de, D: Deserializer<'de>>(from: D) -> Result<IpNet, D::Error> {
    network(&String::deserialize(from)?).map_err(de::Error::custom)
}

fn network(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map(as_ipv4)
        .map_err(|_| format!("“{text}” is neither an address nor a network such as \"192.0.2.0/24\""))
}

/// `::ffff:192.0.2.0/120` as the IPv4 network that it stands for: clients are told by their IPv4 address.
fn as_ipv4(network: IpNet) -> IpNet {
    let mapped = match network {
        IpNet::V6(v6) => v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96)),
        IpNet::V4(_) => None,
    };
    mapped.and_then(|(address, length)| IpNet::new(address.into(), length).ok()).unwrap_or(network)
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

impl Config {
    /// Reads the file that `BARTLEBY_CONFIG` names, else [`DEFAULT_PATH`] if it is there.
    ///
    /// # Errors
    /// The file can't be read, or something in it is unknown or wrong.
    pub fn load() -> Result<Config, ConfigError> {
        match env::var_os("BARTLEBY_CONFIG").filter(|path| !path.is_empty()) {
            Some(path) => Config::read(Path::new(&path)),
            None => match fs::symlink_metadata(DEFAULT_PATH) {
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(Config::default()),
                _ => Config::read(Path::new(DEFAULT_PATH)),
            },
        }
    }

    /// What `as-root` takes from [`DEFAULT_PATH`], and from no other file. Commands that are configured there are left
    /// out: nothing is run as root that a file names.
    ///
    /// # Errors
    /// As [`Config::load`]; or others than root could have written the file.
    pub(crate) fn of_root() -> Result<Config, ConfigError> {
        let file = Path::new(DEFAULT_PATH);
        let untrusted = |refused: Untrusted| ConfigError {
            file: file.into(),
            line: None,
            key: None,
            message: format!("it is not read: {refused}"),
        };
        let mut config = match read_roots(file).map_err(untrusted)? {
            Some(bytes) => Config::from_bytes(&bytes, file)?,
            None => Config::default(),
        };
        config.mta.list_command.clear();
        config.mta.flush_command.clear();
        Ok(config)
    }

    /// Whether `as-root`, which reads [`DEFAULT_PATH`] alone, has the same mail server in mind.
    pub(crate) fn is_as_roots(&self) -> bool {
        self.mta.kind.is_none() || self.file.as_deref() == Some(Path::new(DEFAULT_PATH))
    }

    /// Reads one file.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn read(file: &Path) -> Result<Config, ConfigError> {
        let unread = |error| ConfigError {
            file: file.into(),
            line: None,
            key: None,
            message: format!("it can't be read: {error}"),
        };
        let config = Config::from_bytes(&fs::read(file).map_err(unread)?, file)?;
        // Absolute, as a queue run works from another folder.
        let absolute = std::path::absolute(file).unwrap_or_else(|_| file.into());
        Ok(Config { file: Some(absolute), ..config })
    }

    /// Reads what stands in that file.
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
            let message = error.message().lines().collect::<Vec<_>>().join(" ");
            ConfigError { file: file.into(), line, key: key.or_else(|| section_at(text, line?)), message }
        };
        let source = toml::Deserializer::parse(text).map_err(|error| wrong(&error, None))?;
        serde_path_to_error::deserialize(source).map_err(|error| wrong(error.inner(), key(error.path())))
    }
}

/// `[section] key` of what stands in the file under that path.
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
            [state]
            directory = "/srv/bartleby"
            "#,
        )
        .unwrap();
        assert_eq!(config.mta.kind, Some(Kind::Sendmail));
        assert_eq!(config.mta.deadline, Duration::from_secs(90));
        assert_eq!(config.flush.cooldown, Duration::ZERO);
        assert_eq!(config.access.allow[1].to_string(), "2001:db8::1/128");
        assert_eq!(config.disk.warn, Threshold::Bytes(2 << 30));
        assert_eq!(config.disk.critical, Threshold::Bytes(500_000_000));
        assert_eq!(config.state.directory, Some("/srv/bartleby".into()));
    }

    #[test]
    fn what_is_wrong_is_told_with_file_line_and_key() {
        for (text, expected) in [
            ("[mta]\nkind = \"qmail\"\n", "/etc/bartleby.toml, line 2, [mta] kind: unknown variant `qmail`"),
            (
                "[mta]\nkind = \"dma\"\n",
                "line 2, [mta] kind: unknown variant `dma`, expected one of `postfix`, `sendmail`, `exim`, `opensmtpd`",
            ),
            ("[mta]\n\nkinds = \"x\"\n", "/etc/bartleby.toml, line 3, [mta] kinds: unknown field `kinds`"),
            ("[fush]\n", "/etc/bartleby.toml, line 1, [fush]: unknown field `fush`"),
            ("[flush]\ncooldown = \"soon\"\n", "line 2, [flush] cooldown: “soon” is no duration"),
            ("[flush]\ncooldown = \"-5s\"\n", "line 2, [flush] cooldown: “-5s” is no duration"),
            ("[mta]\ndeadline = \"9223372036854775807s\"\n", "line 2, [mta] deadline: "),
            ("[mta]\ndeadline = \"25h\"\n", "line 2, [mta] deadline: “25h” is longer than a day"),
            ("[mta]\ndeadline = \"0s\"\n", "line 2, [mta] deadline: a listing takes some time"),
            ("[state]\ndirectory = \"x/y\"\n", "line 2, [state] directory: “x/y” is no absolute path"),
            ("[flush]\ncooldown = 30\n", "line 2, [flush] cooldown: write a duration such as \"20s\""),
            ("[access]\nallow = [\"office\"]\n", "line 2, [access] allow[0]: “office” is neither"),
            ("[disk]\nwarn = \"lots\"\n", "line 2, [disk] warn: “lots” is neither"),
            ("[disk]\nwarn = \"150%\"\n", "line 2, [disk] warn: “150%” is neither"),
            ("flush.cooldown = \"soon\"\n", "line 1, [flush] cooldown: “soon” is no duration"),
            ("access = { allow = [\"x\"] }\n", "line 1, [access] allow[0]: “x” is neither"),
            ("mta = 5\n", "line 1, [mta]: invalid type"),
            ("[mta]\nlist_command = [\n \"a\",\n 5,\n]\n", "line 4, [mta] list_command[1]: invalid type"),
            ("[access]\nallow = [\n \"::1\",\n \"x\",\n]\n", "line 4, [access] allow[1]: “x” is neither"),
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
    }
}
