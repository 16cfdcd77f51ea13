//! One file, two uses: a CGI page under a web server, a command line elsewhere.

use std::env;
use std::process::ExitCode;

use bartleby::cgi::gateway::Request;
use bartleby::cgi::routes;
use bartleby::cli;
use bartleby::config::Config;
use bartleby::system::{self, Free, Input};

fn main() -> ExitCode {
    system::close_inherited_descriptors();
    system::expect_children();
    let free = Free::of_main();
    if !cli::is_cgi() {
        return cli::run(free);
    }
    system::forget_inherited_signals();
    system::keep_log_out_of_answer();
    let request = Request::read(|name| env::var_os(name), Input::begin());
    let config = Config::load();
    system::empty_environment();
    system::leave_working_directory();
    routes::answer(free, request, config);
    ExitCode::SUCCESS
}
