//! `bartleby.toml`: every setting has a default, and every mistake is an error.

mod trust;

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
use crate::text::printable;

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
}

impl Default for FlushConfig {
    fn default() -> Self {
        FlushConfig { cooldown: Duration::from_secs(30) }
    }
}

/// `[access]`: the clients that are let in where the web server did not decide.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessConfig {
    /// Networks and single addresses.
    #[serde(deserialize_with = "networks")]
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
            allow: ["127.0.0.0/8", "::1"].into_iter().filter_map(|text| network(text).ok()).collect(),
            hosts: Vec::new(),
            proxy: false,
        }
    }
}

/// `[disk]`: when a filesystem is short of space or inodes.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiskConfig {
    /// Less free than this is a warning.
    pub(crate) warn: Threshold,
    /// Less free than this is critical.
    pub(crate) critical: Threshold,
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
    pub(crate) hosts: Vec<String>,
    /// The domains whose mail is spooled here.
    pub(crate) domains: Vec<String>,
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

/// An amount of free space: a share of the whole, or bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Threshold {
    /// 0 to 100.
    Percent(f64),
    /// Bytes. Inodes are not judged then.
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

/// The longest duration that any setting may have.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// A mail server whose queue is read.
fn readable<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Kind>, D::Error> {
    let word = String::deserialize(from)?;
    let words = || Kind::readable().map(|kind| format!("`{}`", kind.word())).collect::<Vec<_>>().join(", ");
    let unknown = || de::Error::custom(format!("unknown variant `{word}`, expected one of {}", words()));
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

/// `::ffff:192.0.2.0/120` as the IPv4 network that it stands for: clients are compared by their IPv4 address.
fn as_ipv4(network: IpNet) -> IpNet {
    let mapped = match network {
        IpNet::V6(v6) => v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96)),
        IpNet::V4(_) => None,
    };
    mapped.and_then(|(address, length)| IpNet::new(address.into(), length).ok()).unwrap_or(network)
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

    /// What to do about it, where the error does not say so itself.
    pub fn remedy(&self) -> &'static str {
        if self.line.is_some() { "Correct that line." } else { "" }
    }
}

impl Config {
    /// Reads the file that `BARTLEBY_CONFIG` names, else `/etc/bartleby.toml` if it is there.
    ///
    /// # Errors
    /// The file can't be read, something in it is unknown or wrong, or this is root and another user could change it.
    pub fn load() -> Result<Config, ConfigError> {
        let named = env::var_os("BARTLEBY_CONFIG").filter(|path| !path.is_empty());
        let file = named.as_deref().map_or(Path::new(DEFAULT_PATH), Path::new);
        let is_missing = || fs::symlink_metadata(file).is_err_and(|error| error.kind() == ErrorKind::NotFound);
        if named.is_none() && is_missing() {
            return Ok(Config::default());
        }
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
            let message = error.message().lines().collect::<Vec<_>>().join(" ");
            ConfigError { file: file.into(), line, key: key.or_else(|| section_at(text, line?)), message }
        };
        let source = toml::Deserializer::parse(text).map_err(|error| wrong(&error, None))?;
        serde_path_to_error::deserialize(source).map_err(|error| wrong(error.inner(), key(error.path())))
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
            (
                "[access]\nhosts = [\"a.example\", \"b:80\"]\n",
                "line 2, [access] hosts[1]: “b:80” is no host name such as",
            ),
            ("[access]\nhosts = [\"*.example.com\"]\n", "line 2, [access] hosts[0]: “*.example.com” is no host name"),
            ("[access]\nhosts = [\"192.0.2.1\"]\n", "line 2, [access] hosts[0]: “192.0.2.1” is no host name"),
            ("[access]\nhosts = \"a.example\"\n", "line 2, [access] hosts: invalid type"),
            ("[access]\nproxy = \"yes\"\n", "line 2, [access] proxy: invalid type"),
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
