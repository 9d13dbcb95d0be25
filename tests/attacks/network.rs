//! Sockets that are in no file system, through which descriptors could come in and go out.

use crate::{
    attacks::during,
    lab::{Lab, need},
    recipe::Recipe,
};
use std::{
    io::Read,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixStream},
    },
};

/// Attack: NET-2, CVE-2024-27297. Layer: a network namespace of its own.
#[test]
fn nobody_can_call_a_build_from_outside() {
    need("python3", "python3");
    let called = |name: &str, arguments: &[&str]| {
        let lab = Lab::new();
        let mut recipe = Recipe::new("listens", "").fixed_to("done\n");
        let program = format!(
            "import os, socket, threading, time\n\
             server = socket.socket(socket.AF_UNIX); server.bind('\\0{name}'); server.listen()\n\
             threading.Thread(target=lambda: server.accept()[0].sendall(b'come in'), daemon=True).start()\n\
             open('/build/ready', 'w').close()\n\
             while not os.path.exists('/build/go'): time.sleep(0.01)\n\
             open(os.environ['out'], 'w').write('done\\n')"
        );
        recipe.parts.builder = "/usr/bin/python3".into();
        recipe.parts.arguments = vec!["-c".into(), program.as_str().into()];
        let mut answer = String::new();
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--profile", "host-tools"]).collect();
        let (code, result) = during(&lab, &recipe, &arguments, |_| {
            let address = SocketAddr::from_abstract_name(name).expect("an address");
            answer = match UnixStream::connect_addr(&address) {
                Ok(mut stream) => {
                    let mut said = String::new();
                    stream.read_to_string(&mut said).expect("an answer");
                    said
                }
                Err(error) => error.kind().to_string(),
            };
        });
        assert_eq!(code, 0, "{result:#}");
        answer
    };
    let name = format!("fodder-test-inside-{}", std::process::id());
    assert_eq!(called(&name, &[]), "connection refused");
    // Control: in the host's namespace it answers.
    assert_eq!(called(&name, &["--unsafe-host-network"]), "come in");
}
