//! The primary mail servers, `tuccster.example.com` for `example.com` with its subdomains and another
//! one for `other.example`: an SMTP server that can be down, ill or well, and keeps account of all
//! that it takes.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use crate::mails::Mail;
use crate::session;

/// The next hop for `example.com` and `sub.example.com`.
pub const TUCCSTER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 2), 2525);

/// The next hop for `other.example`.
pub const OTHER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 3), 2525);

/// How the primary behaves. Down is nobody listening.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Takes every mail.
    Accepts,
    /// Defers the recipients `slow` and `full`, takes the rest.
    Mixed,
    /// Defers the recipient `slow`, refuses `gone` for good, takes the rest.
    Torn,
    /// Refuses every recipient: it was restored without its mailboxes.
    Refuses,
    /// Takes every recipient, and no mail for the present.
    PutsOffData,
    /// Takes every recipient, and refuses every mail for good.
    RefusesData,
    /// Says so in its greeting.
    TurnsAway,
    /// Takes the connection and says nothing.
    Hangs,
}

/// One recipient's copy of a mail, as it arrived.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Delivery {
    /// The mail's subject.
    pub subject: String,
    /// The envelope sender.
    pub sender: String,
    /// The envelope recipient.
    pub recipient: String,
    /// The server that took it.
    pub server: SocketAddrV4,
    /// How many lines of the text arrived.
    pub lines: usize,
}

/// The deliveries that these mails must lead to, in order.
pub fn due<'a>(mails: impl IntoIterator<Item = &'a Mail>) -> Vec<Delivery> {
    let mut due: Vec<Delivery> = mails.into_iter().flat_map(deliveries_of).collect();
    due.sort();
    due
}

fn deliveries_of(mail: &Mail) -> impl Iterator<Item = Delivery> + '_ {
    mail.recipients.iter().map(|recipient| Delivery {
        subject: mail.subject.to_owned(),
        sender: mail.sender.clone(),
        recipient: recipient.clone(),
        server: if recipient.ends_with("@other.example") { OTHER } else { TUCCSTER },
        lines: mail.lines,
    })
}

/// Both servers.
pub struct Primary {
    account: Arc<Account>,
    addresses: Vec<SocketAddrV4>,
    listeners: Vec<JoinHandle<()>>,
}

/// What both servers' sessions share.
pub struct Account {
    mode: Mutex<Mode>,
    stopped: AtomicBool,
    deliveries: Mutex<Vec<Delivery>>,
}

impl Account {
    /// How to behave now.
    pub fn mode(&self) -> Mode {
        *self.mode.lock().unwrap()
    }

    /// Keeps account of what was taken.
    pub fn enter(&self, deliveries: impl IntoIterator<Item = Delivery>) {
        self.deliveries.lock().unwrap().extend(deliveries);
    }
}

impl Primary {
    /// Servers that are down.
    pub fn new() -> Primary {
        let account = Account { mode: Mutex::new(Mode::Accepts), stopped: false.into(), deliveries: Mutex::default() };
        Primary { account: Arc::new(account), addresses: vec![TUCCSTER, OTHER], listeners: Vec::new() }
    }

    /// Lets them listen at more addresses, from the next start on.
    pub fn also_at(&mut self, addresses: impl IntoIterator<Item = SocketAddrV4>) {
        self.addresses.extend(addresses);
    }

    /// Starts both, or lets them behave differently.
    pub fn up(&mut self, mode: Mode) {
        *self.account.mode.lock().unwrap() = mode;
        if self.listeners.is_empty() {
            self.account.stopped.store(false, Ordering::SeqCst);
            self.listeners = self.addresses.iter().map(|address| listen(*address, &self.account)).collect();
        }
    }

    /// Stops both: connections are refused.
    pub fn down(&mut self) {
        self.account.stopped.store(true, Ordering::SeqCst);
        for (address, listener) in self.addresses.iter().zip(self.listeners.drain(..)) {
            // Wakes the listener, which then sees that it is over.
            let _ = TcpStream::connect(address);
            listener.join().unwrap();
        }
    }

    /// All that arrived, in order.
    pub fn deliveries(&self) -> Vec<Delivery> {
        let mut deliveries = self.account.deliveries.lock().unwrap().clone();
        deliveries.sort();
        deliveries
    }
}

fn listen(address: SocketAddrV4, account: &Arc<Account>) -> JoinHandle<()> {
    let listener = TcpListener::bind(address).unwrap();
    let account = Arc::clone(account);
    thread::spawn(move || {
        for stream in listener.incoming() {
            if account.stopped.load(Ordering::SeqCst) {
                return;
            }
            let account = Arc::clone(&account);
            // A session that breaks off is the other side's business.
            thread::spawn(move || stream.and_then(|stream| session::serve(&stream, address, &account)));
        }
    })
}
