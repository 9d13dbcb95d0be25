{
  description = "Runs one Nix-style derivation as you: no daemon, no root, a sandbox that holds or refuses to start";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" ];
      forEach = function: nixpkgs.lib.genAttrs systems (system: function nixpkgs.legacyPackages.${system});
    in
    {
      packages = forEach (pkgs: {
        default = pkgs.rustPlatform.buildRustPackage {
          pname = "fodder";
          version = (builtins.fromTOML (builtins.readFile ./Cargo.toml)).workspace.package.version;
          src = self;
          cargoLock.lockFile = ./Cargo.lock;
          # The jitter entropy source of aws-lc costs 42 ms in every process that opens a TLS connection.
          env.AWS_LC_SYS_NO_JITTER_ENTROPY = "1";
          # The tests make namespaces and talk to package registries, which Nix's own sandbox does not allow.
          doCheck = false;
          meta = {
            description = "Daemon-free runner for Nix-style derivations";
            license = with pkgs.lib.licenses; [ mit asl20 ];
            mainProgram = "fodder";
            platforms = systems;
          };
        };
      });

      devShells = forEach (pkgs: {
        default = pkgs.mkShell {
          inputsFrom = [ self.packages.${pkgs.stdenv.hostPlatform.system}.default ];
          packages = with pkgs; [ clippy rustfmt bubblewrap busybox-sandbox-shell nix shellcheck ];
        };
      });
    };
}
