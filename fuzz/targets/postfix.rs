#![no_main]

use bartleby::mta::Kind;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| holds::listing(Kind::Postfix, bytes));
