//! The command line: verbs, words, progress, exit codes. The only part that prints or exits.
#![forbid(unsafe_code)]

mod arguments;
mod build;
mod diagnose;
mod explain;
mod inspect_verbs;
mod interrupts;
mod log_verb;
mod network_words;
mod progress;
mod recording_verbs;
mod show;
mod store_verbs;
mod words;

use arguments::{Arguments, Verb};
use clap::{CommandFactory, Parser};
use std::process::ExitCode;

fn main() -> ExitCode {
    if fodder_sandbox::has_borrowed_rights() {
        let failure = diagnose::Failure::new("error: this copy of fodder has a set-id bit or capabilities", 1);
        return ExitCode::from(failure.with_hint("take them off: it needs none, and is not made for them").print());
    }
    // First of all: the sandbox helper is this same program and must find a process with one thread and nothing set up.
    fodder_sandbox::dispatch_helper_with(fodder_build::builtin::INTERNAL_PROGRAMS);
    interrupts::listen();
    let arguments = Arguments::parse();
    let wants_json = matches!(&arguments.verb, Verb::Build(arguments) if arguments.json);
    match std::panic::catch_unwind(|| run(arguments)) {
        Ok(Ok(code)) => ExitCode::from(code),
        Ok(Err(_)) if interrupts::is_interrupted() => {
            ExitCode::from(diagnose::Failure::new(interrupts::WORDS, interrupts::CODE).print())
        }
        Ok(Err(failure)) => ExitCode::from(failure.print()),
        // A panic's own exit code is 101, which means "timed out" here.
        Err(_) => {
            let failure = diagnose::Failure::new("error: this is a mistake in fodder, not in your input", 1);
            if wants_json {
                build::print_failure(&failure);
            }
            ExitCode::from(failure.with_hint("please report it, with the words above and the file").print())
        }
    }
}

fn run(arguments: Arguments) -> Result<u8, diagnose::Failure> {
    match arguments.verb {
        Verb::Build(arguments) => build::build(&arguments),
        Verb::Show(arguments) => show::show(&arguments),
        Verb::Log(arguments) => log_verb::log(&arguments),
        Verb::Explain(arguments) => explain::explain(&arguments),
        Verb::Hash(arguments) => inspect_verbs::hash(&arguments),
        Verb::Refs(arguments) => inspect_verbs::refs(&arguments),
        Verb::Recording(verb) => recording_verbs::recording(&verb),
        Verb::Store(arguments) => store_verbs::store(&arguments),
        Verb::Completions { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "fodder", &mut std::io::stdout());
            Ok(0)
        }
        Verb::Man => {
            let page = clap_mangen::Man::new(Arguments::command());
            page.render(&mut std::io::stdout()).map(|()| 0).map_err(|error| diagnose::Failure::output(&error))
        }
    }
}
