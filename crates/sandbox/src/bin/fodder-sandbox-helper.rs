//! A sandbox helper and nothing else, for programs (tests, above all) that cannot dispatch first themselves.

fn main() -> std::process::ExitCode {
    fodder_sandbox::dispatch_helper();
    // Started by hand; there is nothing to run here.
    std::process::ExitCode::from(2)
}
