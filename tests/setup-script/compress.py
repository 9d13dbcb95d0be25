"""Writes IN as a .Z file of Unix `compress` to OUT: no distribution installs `compress` by default."""
import sys

data = open(sys.argv[1], "rb").read()
out = bytearray(b"\x1f\x9d\x90")  # block mode, at most 16 bits
codes, table = [], None
buffer = count = 0


def put(code, width):
    global buffer, count
    buffer |= code << count
    count += width
    while count >= 8:
        out.append(buffer & 255)
        buffer >>= 8
        count -= 8


# Literals only, with a CLEAR code (256) before the decoder would widen its codes beyond 9 bits. After each CLEAR the
# format fills up to a group of eight codes.
position = 0
for start in range(0, len(data), 200):
    for byte in data[start : start + 200]:
        put(byte, 9)
        position += 1
    put(256, 9)
    position += 1
    while position % 8:
        put(0, 9)
        position += 1
if count:
    out.append(buffer & 255)
open(sys.argv[2], "wb").write(out)
