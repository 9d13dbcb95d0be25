//! What a sandbox promises, tried from inside and from outside. Each rule has a test that fails without the rule.
//!
//! `lab`: the plan and the place. `ending`: how runs end. `process`: what the builder finds itself to be.
//! `isolation`: what it cannot reach. `attacks`: what it tries under the policy that is shipped. `limits`: what it may use up.
//! `door`: the one way out. `root`: the interpreter of the root's steps. `refusal`: what is not run at all.
//! `lifetime`: who dies with whom. `helper`: what stays outside while a builder runs. `ordinary_user`: all of it again without root. `probe`: a builder that makes the
//! system calls no shell makes.

#![expect(clippy::print_stdout, reason = "runners and probes, executed by other tests, answer on standard output")]

mod attacks;
mod door;
mod ending;
mod helper;
mod isolation;
mod lab;
mod lifetime;
mod limits;
mod ordinary_user;
mod probe;
mod process;
mod refusal;
mod root;
