//! One file, two uses: a CGI page under a web server, a command line elsewhere.

use std::env;
use std::io;
use std::process::ExitCode;

use bartleby::cgi::gateway::Request;
use bartleby::config::Config;
use bartleby::{cgi::routes, cli, system};

fn main() -> ExitCode {
    system::close_inherited_descriptors();
    if !cli::is_cgi() {
        return cli::run();
    }
    let request = Request::read(|name| env::var_os(name), io::stdin());
    let config = Config::load();
    empty_environment();
    system::leave_working_directory();
    routes::answer(request, config);
    ExitCode::SUCCESS
}

/// Leaves the `cgi` crate nothing to read, as it panics on what a client may put there.
fn empty_environment() {
    // SAFETY: the environment must not be read meanwhile, and this process has no other thread yet.
    #[allow(unsafe_code)]
    unsafe {
        // It fails only where there is no memory left for an empty list.
        let _ = nix::env::clearenv();
        env::set_var("REQUEST_URI", "/");
    }
}
