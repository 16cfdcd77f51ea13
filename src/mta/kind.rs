//! The mail servers by name.

use serde::{Deserialize, Serialize};

/// The mail servers by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Postfix.
    Postfix,
    /// Sendmail 8.
    Sendmail,
    /// Exim 4.
    Exim,
    /// OpenSMTPD.
    OpenSmtpd,
    /// The DragonFly Mail Agent, which has no queue listing worth the name: found, not read.
    #[serde(skip_deserializing)]
    Dma,
    /// nullmailer: found, not read.
    #[serde(skip_deserializing)]
    Nullmailer,
    /// Courier: found, not read.
    #[serde(skip_deserializing)]
    Courier,
}

impl Kind {
    /// The name as its authors write it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Postfix => "Postfix",
            Kind::Sendmail => "sendmail",
            Kind::Exim => "Exim",
            Kind::OpenSmtpd => "OpenSMTPD",
            Kind::Dma => "the DragonFly Mail Agent",
            Kind::Nullmailer => "nullmailer",
            Kind::Courier => "Courier",
        }
    }

    /// Its systemd unit.
    pub fn unit(self) -> &'static str {
        match self {
            Kind::Postfix => "postfix",
            Kind::Sendmail => "sendmail",
            Kind::Exim => "exim4",
            Kind::OpenSmtpd => "opensmtpd",
            Kind::Dma => "dma",
            Kind::Nullmailer => "nullmailer",
            Kind::Courier => "courier-mta",
        }
    }
}
