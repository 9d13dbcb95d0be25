//! A machine in miniature: namespaces in which every address of the world is served by processes of the test's own, and the
//! program under test runs. Needs no privilege.

use crate::{
    lab::{Lab, Run, need},
    recipe::Recipe,
};
use serde_json::{Value, json};
use std::{
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

/// The servers, see there.
const SERVERS: &str = include_str!("servers.py");

/// What every client says first; `call` gives what was received, or the error's name.
const CLIENT: &str = r#"
import errno, os, socket, sys, time
def named(error):
    return errno.errorcode.get(error.errno, type(error).__name__) if isinstance(error.errno, int) else type(error).__name__
def call(address, port, data=b""):
    began = time.monotonic()
    try:
        with socket.create_connection((address, port), timeout=30) as stream:
            stream.sendall(data)
            stream.shutdown(socket.SHUT_WR)
            got = b""
            while piece := stream.recv(65536):
                got += piece
        answer = got.decode().strip()
    except socket.gaierror as error:
        answer = "EAI" + str(error.errno)
    except OSError as error:
        answer = named(error)
    return answer if time.monotonic() - began < 10 else answer + " after a long time"
def say(*words):
    print("|", *words, flush=True)
"#;

/// Addresses, names and servers.
pub struct World {
    pub lab: Lab,
    /// Names, with their addresses.
    pub names: Value,
    /// Servers of names.
    pub resolvers: Vec<&'static str>,
    /// Those that never answer.
    pub dead: Vec<&'static str>,
    /// Where somebody says hello.
    pub hello: Vec<(&'static str, u16)>,
    /// Proxies.
    pub proxy: Vec<(&'static str, u16)>,
    /// Variables of the caller.
    pub environment: Vec<(&'static str, &'static str)>,
    /// In resolv.conf(5).
    pub name_servers: Vec<&'static str>,
    /// Further lines of the script that makes the world.
    pub setup: String,
}

/// A public address at which somebody says hello on ports 80 and 8321.
pub const PUBLIC: &str = "198.51.100.7";

/// One of this machine's own.
pub const OWN: &str = "192.0.2.2";

impl World {
    pub fn new() -> Self {
        need("python3", "python3");
        need("unshare", "util-linux");
        need("busybox", "busybox-static");
        World {
            lab: Lab::new(),
            names: json!({ "public.example": [PUBLIC] }),
            resolvers: vec!["192.0.2.53"],
            dead: vec![],
            hello: vec![(PUBLIC, 80), (PUBLIC, 8321)],
            proxy: vec![],
            environment: vec![],
            name_servers: vec!["192.0.2.53"],
            setup: String::new(),
        }
    }

    /// Builds a fixed output with a client in Python; the lines that it said, and the result.
    #[track_caller]
    pub fn says(&self, script: &str, arguments: &[&str]) -> (Vec<String>, Value) {
        let run = self.build(&client(script), arguments);
        assert_eq!(run.code, 0, "{run:?}");
        (lines(&run.stderr), serde_json::from_str(&run.stdout).expect("a result"))
    }

    /// Builds a recipe.
    pub fn build(&self, recipe: &Recipe, arguments: &[&str]) -> Run {
        let file = recipe.write(&self.lab);
        let store = self.lab.store();
        let mut all =
            vec!["build", "--json", "--no-link", "--profile", "host-tools", "--store", store.to_str().expect("UTF-8")];
        all.extend(arguments);
        all.push(file.to_str().expect("UTF-8"));
        self.run(&all)
    }

    /// Builds a short form.
    pub fn build_form(&self, form: &Value, arguments: &[&str]) -> Run {
        self.lab.write("form.json", form.to_string());
        let store = self.lab.store();
        let mut all = vec!["build", "--json", "--no-link", "--store", store.to_str().expect("UTF-8")];
        all.extend(arguments);
        all.push("form.json");
        self.run(&all)
    }

    /// Runs the program in this world.
    fn run(&self, arguments: &[&str]) -> Run {
        let World { lab, names, resolvers, dead, hello, proxy, environment, name_servers, setup } = self;
        let inside = |name: &str| lab.path().join(name).display().to_string();
        let resolv_conf: String = name_servers.iter().map(|server| format!("nameserver {server}\n")).collect();
        let hosts = "127.0.0.1 localhost\n::1 localhost\n198.51.100.7 files.example\n";
        lab.write("resolv.conf", resolv_conf);
        lab.write("hosts", hosts);
        lab.write("servers.py", SERVERS);
        let configuration = json!({
            "names": names, "resolvers": resolvers, "dead": dead, "hello": hello, "proxy": proxy,
            "asked": inside("asked"), "ready": inside("ready")
        });
        let is_root = nix::unistd::geteuid().is_root();
        // The builder of an ordinary user is one here, too.
        let again = match is_root {
            true => String::new(),
            false => {
                format!("unshare --user --map-user={} --map-group={}", nix::unistd::geteuid(), nix::unistd::getegid())
            }
        };
        let script = format!(
            "busybox ip link set lo up
             busybox ip address add {OWN}/32 dev lo
             busybox ip route add local default dev lo
             mount --bind resolv.conf /etc/resolv.conf
             mount --bind hosts /etc/hosts
             {setup}
             rm -f ready
             /usr/bin/python3 servers.py \"$configuration\" & servers=$!
             trap 'kill $servers' EXIT
             for i in $(seq 200); do [ -e ready ] && break; sleep 0.05; done
             [ -e ready ]
             {again} \"$@\""
        );
        let mut command = Command::new("unshare");
        if !is_root {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--net", "--mount", "sh", "-euc", &script, "sh"]);
        command.arg(env!("CARGO_BIN_EXE_fodder")).args(arguments).current_dir(lab.path()).stdin(Stdio::null());
        command.env("configuration", configuration.to_string()).env("FODDER_HOST_STORE", "none");
        for proxy in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
            command.env_remove(proxy).env_remove(proxy.to_uppercase());
        }
        command.envs(environment.iter().copied());
        lab.run(command)
    }

    /// The names that were asked for: how, which, and of which type.
    pub fn asked(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.lab.path().join("asked")).expect("a log of the name servers");
        text.lines().map(str::to_owned).collect()
    }
}

/// A client in Python that makes `done`.
pub fn client(script: &str) -> Recipe {
    python(&format!("{CLIENT}\n{script}\nopen(os.environ['out'], 'w').write('done\\n')\n"))
}

fn python(script: &str) -> Recipe {
    // Fixed outputs of one name and hash are one path, which would be there already.
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let mut recipe = Recipe::new(&format!("client-{}", COUNT.fetch_add(1, Ordering::Relaxed)), "");
    recipe.parts.builder = "/usr/bin/python3".into();
    recipe.parts.arguments = vec!["-c".into(), script.into()];
    recipe.env("builder", "/usr/bin/python3").fixed_to("done\n")
}

/// What clients said.
pub fn lines(log: &str) -> Vec<String> {
    log.lines().filter_map(|line| line.split_once("> | ")).map(|(_, words)| words.to_owned()).collect()
}

/// The entry for an address.
#[track_caller]
pub fn entry<'a>(result: &'a Value, address: &str, port: u16) -> &'a Value {
    let hosts = result["network"]["hosts"].as_array().unwrap_or_else(|| panic!("no hosts in {result:#}"));
    let mut found = hosts.iter().filter(|host| host["address"] == address && host["port"] == port);
    let entry = found.next().unwrap_or_else(|| panic!("no {address} {port} in {hosts:#?}"));
    assert!(found.next().is_none(), "{hosts:#?}");
    entry
}
