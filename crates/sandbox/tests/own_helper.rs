//! A program that dispatches first and is its own helper. Without the test harness, whose `main` is not ours.
#![expect(clippy::print_stdout, reason = "this is a program")]

#[path = "sandbox/lab.rs"]
#[expect(dead_code, reason = "the other tests use more of it")]
mod lab;

fn main() {
    fodder_sandbox::dispatch_helper();
    let helper = fodder_sandbox::Helper::current_exe().expect("this program dispatches");
    let lab = lab::Lab::new();
    let mut log = Vec::new();
    let sandbox = fodder_sandbox::Sandbox::new(helper).unwrap();
    let report = sandbox.run(&lab.plan("echo by itself; exit 4"), &mut |bytes| log.extend_from_slice(bytes)).unwrap();
    assert_eq!(report.exit, fodder_sandbox::BuilderExit::Exited(4));
    assert_eq!(log, b"by itself\n");
    println!("test a_program_that_dispatches_is_its_own_helper ... ok");
}
