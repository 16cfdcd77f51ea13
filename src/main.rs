//! One file, two uses: a CGI page under a web server, a command line elsewhere.

use std::env;
use std::io;
use std::process::ExitCode;

use bartleby::cgi::gateway::Request;
use bartleby::cgi::routes;
use bartleby::cli;
use bartleby::config::Config;
use bartleby::system::{self, Free};

fn main() -> ExitCode {
    system::close_inherited_descriptors();
    let free = Free::of_main();
    if !cli::is_cgi() {
        return cli::run(free);
    }
    let request = Request::read(|name| env::var_os(name), io::stdin());
    let config = Config::load();
    system::empty_environment();
    system::leave_working_directory();
    routes::answer(free, request, config);
    ExitCode::SUCCESS
}
