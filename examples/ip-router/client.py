"""Joins the network acme/office as 10.3.0.5 over a SEQPACKET socket and answers pings."""
import json
import socket
import sys

PATH = sys.argv[1] if len(sys.argv) > 1 else "/tmp/rampart-ip-router.sock"
ADDRESS = "10.3.0.5"
ICMP, ECHO_REQUEST = 1, 8


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF).to_bytes(2, "big")


def echo_reply(packet):
    """The reply to an IPv4 echo request without options; None for any other packet."""
    if packet[0] != 0x45 or packet[9] != ICMP or packet[20] != ECHO_REQUEST:
        return None
    message = b"\0\0" + b"\0\0" + packet[24:]
    message = message[:2] + checksum(message) + message[4:]
    header = packet[:8] + b"\x40\x01" + b"\0\0" + packet[16:20] + packet[12:16]
    return header[:10] + checksum(header) + header[12:] + message


tunnel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
tunnel.connect(PATH)
# Message 0 is the context. Every later message, in both directions, is exactly one IP packet.
context = {"account": "acme", "vnet": "office", "user": "client.py", "sources": [ADDRESS + "/32"]}
tunnel.send(json.dumps(context).encode())
print("joined as", ADDRESS, flush=True)
while packet := tunnel.recv(65536):
    reply = echo_reply(packet)
    if reply:
        tunnel.send(reply)
