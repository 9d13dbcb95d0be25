#!/usr/bin/env python3
"""Writes the seeds of the fuzz targets anew: small inputs that reach every branch, and the attacks that are known."""
import bz2, gzip, io, json, lzma, pathlib, shutil, sqlite3, struct, tarfile, tempfile, zlib

here = pathlib.Path(__file__).parent / "seeds"
shutil.rmtree(here, ignore_errors=True)


def seed(target, name, data):
    (here / target).mkdir(parents=True, exist_ok=True)
    (here / target / name).write_bytes(data if isinstance(data, bytes) else data.encode())


def text(*parts):
    result = b""
    for part in parts:
        part = part if isinstance(part, bytes) else part.encode()
        result += struct.pack("<Q", len(part)) + part + bytes(-len(part) % 8)
    return result


def nar(*parts):
    return text("nix-archive-1", *parts)


def entry(name, *node):
    return ("entry", "(", "name", name, "node", *node, ")")


link = ("(", "type", "symlink", "target", "t", ")")
file = ("(", "type", "regular", "contents", "hello", ")")
tool = ("(", "type", "regular", "executable", "", "contents", "#!/bin/sh\n", ")")


def folder(*entries):
    return ("(", "type", "directory", *(part for one in entries for part in one), ")")


nars = {
    "file": nar(*file),
    "tool": nar(*tool),
    "link": nar(*link),
    "tree": nar(*folder(entry("a", *file), entry("b", *tool), entry("c", *folder(entry("d", *link))))),
    "through-link": nar(*folder(entry("x", *link), entry("x", *folder(entry("y", *file))))),
    "dots": nar(*folder(entry("..", *file))),
    "slash": nar(*folder(entry("a/b", *file))),
    "trailing": nar(*file) + b"junk",
    "size": nar("(", "type", "regular", "contents")[:] + struct.pack("<Q", 2**64 - 8) + bytes(64),
    "deep": nar(*sum([["(", "type", "directory", "entry", "(", "name", "d", "node"] for _ in range(70)], [])),
}
for name, data in nars.items():
    seed("nar_read", name, data)
    seed("nar_restore", name, data)


def exported(*paths):
    stream = b""
    for body, path, references in paths:
        stream += struct.pack("<Q", 1) + body + struct.pack("<Q", 0x4558494E) + text(path)
        stream += struct.pack("<Q", len(references)) + text(*references) + text("") + struct.pack("<Q", 0)
    return stream + struct.pack("<Q", 0)


one = "/nix/store/" + "0" * 32 + "-one"
seed("import", "one", exported((nars["file"], one, [])))
seed("import", "self", exported((nars["tree"], one, [one])))
seed("import", "empty", exported())

fixed = "sha256-CkMIecJm+LV/QJKg+TXPP6zUi7zN5XYNR0jKQFFx6Wk="
drv = {"args": ["-c", "echo"], "builder": "/bin/sh", "env": {"a": "\u00e9\n\"\\", "out": ""}, "inputs": {"drvs": {}, "srcs": []},
       "name": "x", "outputs": {"out": {}}, "system": "x86_64-linux", "version": 4}
for name, outputs in {
    "plain": {"out": {}, "dev": {}},
    "fixed": {"out": {"hash": fixed, "method": "flat"}},
    "floating": {"out": {"hashAlgo": "sha256", "method": "nar"}},
    "impure": {"out": {"hashAlgo": "sha256", "impure": True, "method": "nar"}},
}.items():
    seed("drv_json", name, json.dumps(drv | {"outputs": outputs, "env": {}}))
    seed("drv_json", "set-" + name, json.dumps({"derivations": {"0" * 32 + "-x.drv": drv | {"outputs": outputs, "env": {}}}, "version": 4}))
seed("drv_json", "legacy", json.dumps({"/nix/store/" + "0" * 32 + "-x.drv": {
    "args": [], "builder": "/bin/sh", "env": {"__json": "{\"a\":1.5e3}"}, "inputDrvs": {}, "inputSrcs": [one],
    "outputs": {"out": {"hashAlgo": "r:sha256", "hash": "0" * 52}}, "system": "x"}}))
seed("drv_json", "structured", json.dumps(drv | {"env": {}, "structuredAttrs": {"a": [1, 2.5, None, {"b": "c"}]}}))
seed("drv_json", "twice", '{"name":"x","name":"y","outputs":{}}')
seed("drv_json", "deep", "[" * 200 + "]" * 200)
seed("drv_json", "resolved", json.dumps(drv | {"env": {}, "inputs": []}))
aterm = 'Derive([("out","","r:sha256","")],[("%s.drv",["out"])],["%s"],"x86_64-linux","/bin/sh",["-c","a\\n\\"b\\""],[("a","b"),("out","")])' % (one, one)
seed("drv_aterm", "floating", aterm)
seed("drv_aterm", "plain", aterm.replace("r:sha256", ""))
seed("drv_aterm", "fixed", aterm.replace('"r:sha256",""', '"sha256","%s"' % ("0" * 64)))
seed("drv_aterm", "structured", aterm.replace('("a","b")', '("__json","{\\"a\\":[1,2.5]}")'))
seed("drv_aterm", "twice", aterm.replace('("a","b")', '("a","b"),("a","c")'))

form = {"name": "x", "src": "./a", "buildPhase": ["make", "make check"], "nativeBuildInputs": ["gcc", "/usr/bin/x"], "env": {"A": "b"},
        "outputHash": fixed, "outputHashMode": "recursive", "fodder": {"profile": "nix", "network": {"allow": ["a.example:443"]}}}
seed("short_form", "all", json.dumps(form))
seed("short_form", "small", '{"name":"x","buildCommand":"touch $out"}')
seed("short_form", "structured", '{"pname":"x","version":"1","__structuredAttrs":true,"list":["a","b"],"buildCommand":"true"}')

seed("narinfo", "signed", """StorePath: /nix/store/kg6md52mmhk7p6ncw3brkqyvsjz0yqs2-dep2
URL: nar/1r3v22qkypccqifzbww5lrn6hf1chi23m6zzkyvb8bvg457nxslq.nar.xz
Compression: xz
FileHash: sha256:1r3v22qkypccqifzbww5lrn6hf1chi23m6zzkyvb8bvg457nxslq
FileSize: 200
NarHash: sha256:0xx0qxaris04a806ibxf9jw92ddj2c1lnnvx7frjidz3rab6gp1q
NarSize: 168
References: k6acb82mmxnvhglc719q86vxnamq9rcl-dep.txt
Deriver: cmjw9zscdp39w299jrjwiik9c1xr39p2-simple.drv
Sig: test-1:plyWpi4bP0C/nQRM42FJPw4Gr+C60DW8PwpnS7mqNRpeThFxizRc0i5WIk4AYiRUEMygm/LVYiLDIPk0Aq9tCg==
CA: fixed:r:sha256:0xx0qxaris04a806ibxf9jw92ddj2c1lnnvx7frjidz3rab6gp1q
""")
for name, value in {"path": one, "sri": fixed, "nix32": "sha256:0xx0qxaris04a806ibxf9jw92ddj2c1lnnvx7frjidz3rab6gp1q",
                    "address": "fixed:r:sha256:0xx0qxaris04a806ibxf9jw92ddj2c1lnnvx7frjidz3rab6gp1q", "text": "text:sha256:" + "0" * 52,
                    "key": "test-1:k+yGiTOGZfBbzu91mrysM5895ibA9ygOevV8SjG+x0Y=", "dots": "/nix/store/" + "0" * 32 + "-..-x"}.items():
    seed("store_path", name, value)

body = {"sha256": "0" * 64, "size": 0}
exchange = {"request": {"method": "GET", "url": "https://a.example/?token=REDACTED-abcd", "protocol": "HTTP/1.1",
                        "headers": [["accept", "*/*"]], "body": body},
            "response": {"status": 200, "reason": None, "headers": [["content-length", "0"]], "body": body, "complete": True, "trailers": []}}
seed("recording", "one", json.dumps({"version": 1, "derivation": "x", "salt": "s", "names": {"a.example": True},
                                     "hosts": {"a.example:443": {"kind": "https", "http2": True}}, "loopbackPorts": [80],
                                     "exchanges": [exchange, exchange], "notRecorded": ["x"]}))
seed("recording", "url", "https://me:secret@a.example/x?token=abc&b=c;sig=1#f")
seed("profile", "all", """name = "x"
extends = "nix"
[[entry]]
mirror = "/usr"
why = "tools"
[[entry]]
bind = "/a"
source = "${build}"
writable = true
optional = true
when = "network"
why = "b"
[[entry]]
tmpfs = "/t"
mode = 0o755
size = "1"
why = "c"
[network]
allow = ["a.example:443"]
""")
seed("profile", "deep", "a = " + "[" * 200)
for index, value in enumerate(["*.example.org:443", "10.0.0.0/8", "[::1]:80", "[fd00::]/8", "http://me:p%40ss@proxy:3128/", "https://one.example/f\nmachine one.example login me password p@ss",
                               "https://one.example:8443/f\nmacdef x\na b\n\ndefault login a password b"]):
    seed("network_text", str(index), value)
for index, (kinds, rest) in enumerate([(bytes([0, 127, 0, 0, 1, 0, 127, 0, 0, 0]), [8, 0]), (bytes([0, 93, 184, 216, 34, 0, 93, 184, 0, 0]), [16, 1])]):
    seed("address_policy", str(index), kinds + bytes(rest))
for name, prefix in {"mapped": b"\0" * 10 + b"\xff\xff", "translated": bytes.fromhex("0064ff9b") + b"\0" * 8, "compatible": b"\0" * 12}.items():
    seed("address_policy", name, b"\1" + prefix + bytes([169, 254, 169, 254]) + bytes([0, 169, 254, 0, 0, 16, 0]))
seed("address_policy", "six-to-four", b"\1" + bytes.fromhex("20027f000001") + b"\0" * 10 + bytes([0, 127, 0, 0, 0, 8, 1]))

data = b"hello, hello, hello\n" * 5
raw = lzma.compress(data, lzma.FORMAT_ALONE)
lzip = b"LZIP\1\x17" + raw[13:] + struct.pack("<IQ", zlib.crc32(data), len(data))
lzip += struct.pack("<Q", len(lzip) + 8)
for index, (name, packed) in enumerate([("xz", lzma.compress(data)), ("bzip2", bz2.compress(data)), ("gzip", gzip.compress(data, mtime=0)),
                                        ("zstd", bytes.fromhex("28b52ffd0028290000") + b"hello"), ("brotli", bytes.fromhex("0b028068656c6c6f03")), ("lzma", raw), ("lzip", lzip)]):
    seed("decompress", name, bytes([index]) + packed)
    seed("decompress", name + "-twice", bytes([index]) + packed * 2)


def packed(kind, *members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as archive:
        for name, how, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.mode = how, 0o755
            info.linkname = content if how in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            info.size = len(content) if how == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(content.encode()) if how == tarfile.REGTYPE else None)
    # Python fills up to twenty blocks.
    return out.getvalue().rstrip(b"\0") + bytes(1024 + -len(out.getvalue().rstrip(b"\0")) % 512)


regular, directory, symbolic, hard = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
for label, kind in {"pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT, "ustar": tarfile.USTAR_FORMAT}.items():
    long = "d/" * 40 + "x" * (40 if label == "ustar" else 120)
    seed("tar_extract", label, packed(kind, ("a", directory, ""), ("a/b", regular, "hello"), (long, regular, "x"), ("l", symbolic, "a/b"), ("h", hard, "a/b")))
seed("tar_extract", "through-link", packed(tarfile.GNU_FORMAT, ("x", symbolic, "../canary"), ("x/evil", regular, "x")))
seed("tar_extract", "link-then-directory", packed(tarfile.GNU_FORMAT, ("x", symbolic, "../canary"), ("x", directory, "")))
seed("tar_extract", "hard-link", packed(tarfile.GNU_FORMAT, ("x", symbolic, "../canary/file"), ("y", hard, "x"), ("z", hard, "../canary/file")))
seed("tar_extract", "dots", packed(tarfile.GNU_FORMAT, ("../canary/file", regular, "evil")))
inner = packed(tarfile.GNU_FORMAT, ("evil", regular, "x"))
info = tarfile.TarInfo("outer")
info.pax_headers = {"size": str(len(inner))}
seed("tar_extract", "two-sizes", info.tobuf(tarfile.PAX_FORMAT) + inner)

query = bytes.fromhex("123401000001000000000000") + b"\1a\7example\0" + bytes.fromhex("00010001")
seed("dns", "query", query)
seed("dns", "edns", query[:10] + b"\0\1" + query[12:] + bytes.fromhex("00002904d000000000000c000a0008") + b"12345678")
seed("dns", "circle", query[:12] + b"\xc0\x0c\0\1\0\1")

with tempfile.TemporaryDirectory() as place:
    path = pathlib.Path(place) / "db.sqlite"
    source = (here.parent.parent / "crates/store/src/database.rs").read_text().split('const TABLES: &str = "', 1)[1].split('\n";', 1)[0]
    database = sqlite3.connect(path)
    database.execute("pragma page_size = 512")
    database.executescript(source.replace('\\"', '"'))
    database.execute("insert into ValidPaths (path, hash, registrationTime, narSize) values (?, ?, 1, 120)", (one, "sha256:" + "0" * 64))
    database.execute("insert into Refs values (1, 1)")
    database.commit()
    database.close()
    seed("database", "one", path.read_bytes())
