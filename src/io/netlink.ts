/**
 * rtnetlink (RFC 3549, linux/rtnetlink.h) as far as private namespaces need it: links, addresses, routes,
 * neighbours. The kernel works a request off inside `send`, so request and answer are synchronous.
 */
import { assert } from '#base/assert.ts';
import { RampartError } from '#base/error.ts';
import { parseIp, parsePrefix } from '#base/ip.ts';

import { closeDescriptor, openSocket, receiveBytes, sendBytes, setIntegerOption } from './ffi/namespace.ts';
import { Errno } from './io.ts';
import { systemError } from './system-error.ts';

const AF_INET = 2;
const AF_INET6 = 10;
const AF_NETLINK = 16;
const SOCK_RAW = 3;
const SOL_NETLINK = 270;
const NETLINK_EXT_ACK = 11;
const NETLINK_CAP_ACK = 10;

const NLMSG_ERROR = 2;
const NLMSGERR_ATTR_MSG = 1;
const REQUEST = 1;
const ACK = 4;
const EXCL = 0x200;
const CREATE = 0x400;
const NESTED = 0x8000;

const RTM_NEWLINK = 16;
const RTM_DELLINK = 17;
const RTM_GETLINK = 18;
const RTM_NEWADDR = 20;
const RTM_NEWROUTE = 24;
const RTM_DELROUTE = 25;
const RTM_NEWNEIGH = 28;
const RTM_NEWRULE = 32;

const IFF_UP = 1;
const IFF_NOARP = 0x80;

const IFLA_ADDRESS = 1;
const IFLA_IFNAME = 3;
const IFLA_MTU = 4;
const IFLA_TXQLEN = 13;
const IFLA_LINKINFO = 18;
const IFLA_AF_SPEC = 26;
const IFLA_NET_NS_FD = 28;
const IFLA_INFO_KIND = 1;
const IFLA_INFO_DATA = 2;
const VETH_INFO_PEER = 1;
const IFLA_INET6_ADDR_GEN_MODE = 8;
const IN6_ADDR_GEN_MODE_NONE = 1;

const IFA_F_NODAD = 2;
const NUD_PERMANENT = 0x80;

/** Most bytes of one request; the largest here (a veth pair) is below 400. */
const MESSAGE_BYTES_MAX = 2048;

/** What is known of a link. */
export interface LinkInfo {
  readonly index: number;
  readonly name: string;
  readonly mtu: number;
  /** IFF_ bits of netdevice(7). */
  readonly flags: number;
  /** Six bytes of an Ethernet link; empty for a TUN. */
  readonly address: Uint8Array;
}

/** What to change of a link; an absent member is left alone. */
export interface LinkChange {
  readonly up?: boolean;
  /** Bytes of the largest IP packet. */
  readonly mtu?: number;
  readonly name?: string;
  /** Sends without asking for a neighbour's link address (IFF_NOARP), in IPv6 too. */
  readonly noArp?: boolean;
  readonly address?: Uint8Array;
  /** Packets that wait in the device's own queue. */
  readonly queueLength?: number;
  /** Moves the link into the namespace of this descriptor. */
  readonly namespaceFd?: number;
  /** Makes no link-local IPv6 address by itself. Only valid while the link knows IPv6. */
  readonly noAutomaticAddress?: boolean;
}

/** Two joined Ethernet devices. */
export interface VethOptions {
  readonly name: string;
  readonly peerName: string;
  /** Of both ends. */
  readonly mtu: number;
  /** Six bytes each; chosen by the kernel when absent. */
  readonly address?: Uint8Array;
  readonly peerAddress?: Uint8Array;
  /** Namespace of the peer; the socket's own when absent. */
  readonly peerNamespaceFd?: number;
}

/** A route; text forms of addresses as in `ip route`. */
export interface RouteOptions {
  /** Prefix, `0.0.0.0/0` or `::/0` for the default. */
  readonly destination: string;
  /** Index of the outgoing link; absent for blackhole and unreachable routes. */
  readonly link?: number;
  readonly gateway?: string;
  /** Preferred source address. */
  readonly source?: string;
  /** Default 254, the main table. */
  readonly table?: number;
  readonly scope?: 'global' | 'link' | 'host';
  readonly type?: 'unicast' | 'local' | 'blackhole' | 'unreachable';
  /** Lower wins. */
  readonly metric?: number;
  /** Path MTU in bytes, and the TCP segment size to announce. */
  readonly mtu?: number;
  readonly advertisedSegmentMax?: number;
}

const ROUTE_TYPE = Object.freeze({ unicast: 1, local: 2, blackhole: 6, unreachable: 7 } as const);
const ROUTE_SCOPE = Object.freeze({ global: 0, link: 253, host: 254 } as const);

/** A route socket of the namespace in which the thread was when it was opened. Close it after use. */
export class RouteSocket {
  readonly #fd: number;
  #sequence = 0;

  /** @throws RAMP_DEVICE when the kernel gives no socket. */
  constructor() {
    this.#fd = openSocket(AF_NETLINK, SOCK_RAW, 0);
    if (this.#fd < 0) throw systemError('RAMP_DEVICE', 'opening a route socket', this.#fd);
    // Both only make errors better, so a kernel without them is fine.
    setIntegerOption(this.#fd, SOL_NETLINK, NETLINK_EXT_ACK, 1);
    setIntegerOption(this.#fd, SOL_NETLINK, NETLINK_CAP_ACK, 1);
  }

  close(): void {
    closeDescriptor(this.#fd);
  }

  /** What the kernel knows of link `name`; null when there is none. */
  findLink(name: string): LinkInfo | null {
    const message = new Message(RTM_GETLINK, 0);
    message.link(0, 0, 0);
    message.text(IFLA_IFNAME, name);
    const answer = this.#exchange(message);
    if (answer.code === -Errno.ENODEV) return null;
    if (answer.code < 0)
      throw systemError('RAMP_DEVICE', `looking up link ${name}`, answer.code, answer.text);
    return parseLink(answer.data);
  }

  /** Index of link `name`. @throws RAMP_DEVICE when there is none. */
  linkIndex(name: string): number {
    const link = this.findLink(name);
    if (link === null) throw systemError('RAMP_DEVICE', `looking up link ${name}`, -Errno.ENODEV);
    return link.index;
  }

  changeLink(index: number, change: LinkChange): void {
    assert(index > 0);
    let flags = 0;
    let mask = 0;
    if (change.up !== undefined) {
      mask |= IFF_UP;
      if (change.up) flags |= IFF_UP;
    }
    if (change.noArp !== undefined) {
      mask |= IFF_NOARP;
      if (change.noArp) flags |= IFF_NOARP;
    }
    const message = new Message(RTM_NEWLINK, 0);
    message.link(index, flags, mask);
    if (change.address !== undefined) message.attribute(IFLA_ADDRESS, change.address);
    if (change.mtu !== undefined) message.number(IFLA_MTU, change.mtu);
    if (change.name !== undefined) message.text(IFLA_IFNAME, change.name);
    if (change.queueLength !== undefined) message.number(IFLA_TXQLEN, change.queueLength);
    if (change.namespaceFd !== undefined) message.number(IFLA_NET_NS_FD, change.namespaceFd);
    if (change.noAutomaticAddress === true) {
      const families = message.begin(IFLA_AF_SPEC | NESTED);
      const inet6 = message.begin(AF_INET6 | NESTED);
      message.attribute(IFLA_INET6_ADDR_GEN_MODE, Uint8Array.of(IN6_ADDR_GEN_MODE_NONE));
      message.end(inet6);
      message.end(families);
    }
    this.#request(message, `changing link ${index} (${Object.keys(change).join(', ')})`);
  }

  deleteLink(index: number): void {
    const message = new Message(RTM_DELLINK, 0);
    message.link(index, 0, 0);
    this.#request(message, `deleting link ${index}`);
  }

  createVeth(options: VethOptions): void {
    const message = new Message(RTM_NEWLINK, CREATE | EXCL);
    message.link(0, 0, 0);
    message.text(IFLA_IFNAME, options.name);
    message.number(IFLA_MTU, options.mtu);
    if (options.address !== undefined) message.attribute(IFLA_ADDRESS, options.address);
    const info = message.begin(IFLA_LINKINFO | NESTED);
    message.text(IFLA_INFO_KIND, 'veth');
    const data = message.begin(IFLA_INFO_DATA | NESTED);
    const peer = message.begin(VETH_INFO_PEER | NESTED);
    message.link(0, 0, 0);
    message.text(IFLA_IFNAME, options.peerName);
    message.number(IFLA_MTU, options.mtu);
    if (options.peerAddress !== undefined) message.attribute(IFLA_ADDRESS, options.peerAddress);
    if (options.peerNamespaceFd !== undefined) message.number(IFLA_NET_NS_FD, options.peerNamespaceFd);
    message.end(peer);
    message.end(data);
    message.end(info);
    this.#request(message, `creating the veth pair ${options.name} and ${options.peerName}`);
  }

  /**
   * Adds `address` (`10.0.0.1/24`, host bits kept) to a link; an IPv6 address is usable at once (no
   * duplicate detection).
   */
  addAddress(index: number, address: string): void {
    const [host = '', lengthText] = address.split('/');
    const bytes = parseIp(host);
    if (bytes === null) throw badText('address', address);
    const length = lengthText === undefined ? bytes.length * 8 : Number(lengthText);
    if (!(length >= 0 && length <= bytes.length * 8)) throw badText('address', address);
    const message = new Message(RTM_NEWADDR, CREATE);
    const family = bytes.length === 4 ? AF_INET : AF_INET6;
    message.bytes(Uint8Array.of(family, length, family === AF_INET6 ? IFA_F_NODAD : 0, 0));
    message.u32(index);
    const IFA_ADDRESS = 1;
    const IFA_LOCAL = 2;
    message.attribute(IFA_LOCAL, bytes);
    message.attribute(IFA_ADDRESS, bytes);
    this.#request(message, `adding address ${address} to link ${index}`);
  }

  addRoute(route: RouteOptions): void {
    this.#request(routeMessage(RTM_NEWROUTE, CREATE, route), `adding route ${route.destination}`);
  }

  deleteRoute(route: RouteOptions): void {
    this.#request(routeMessage(RTM_DELROUTE, 0, route), `deleting route ${route.destination}`);
  }

  /** Packets that come in by link `name` are routed by `table`. */
  addRule(family: 4 | 6, name: string, table: number): void {
    const FRA_IIFNAME = 3;
    const FRA_PRIORITY = 6;
    const message = new Message(RTM_NEWRULE, CREATE | EXCL);
    message.bytes(Uint8Array.of(family === 4 ? AF_INET : AF_INET6, 0, 0, 0, table, 0, 0, ROUTE_TYPE.unicast));
    message.u32(0);
    message.text(FRA_IIFNAME, name);
    message.number(FRA_PRIORITY, 100);
    this.#request(message, `adding a rule for packets from ${name}`);
  }

  /** A permanent neighbour entry. */
  addNeighbour(index: number, address: string, linkAddress: Uint8Array): void {
    const bytes = parseIp(address);
    if (bytes === null) throw badText('address', address);
    const NDA_DST = 1;
    const NDA_LLADDR = 2;
    const message = new Message(RTM_NEWNEIGH, CREATE);
    message.u32(bytes.length === 4 ? AF_INET : AF_INET6);
    message.u32(index);
    message.u16(NUD_PERMANENT);
    message.u16(0);
    message.attribute(NDA_DST, bytes);
    message.attribute(NDA_LLADDR, linkAddress);
    this.#request(message, `adding neighbour ${address} to link ${index}`);
  }

  #request(message: Message, what: string): void {
    const answer = this.#exchange(message);
    if (answer.code < 0) throw systemError('RAMP_DEVICE', what, answer.code, answer.text);
  }

  /** Sends one request and reads to its acknowledgement. */
  #exchange(message: Message): Answer {
    const sequence = ++this.#sequence;
    const sent = sendBytes(this.#fd, message.finish(sequence));
    if (sent < 0) return { code: sent, text: '', data: EMPTY };
    let data = EMPTY;
    for (;;) {
      const datagram = receiveBytes(this.#fd);
      if (typeof datagram === 'number') return { code: datagram, text: '', data };
      const view = new DataView(datagram.buffer, datagram.byteOffset, datagram.byteLength);
      for (let at = 0; at + 16 <= datagram.length; ) {
        const length = view.getUint32(at, true);
        if (length < 16 || at + length > datagram.length) break;
        if (view.getUint32(at + 8, true) === sequence) {
          if (view.getUint16(at + 4, true) === NLMSG_ERROR) {
            const code = view.getInt32(at + 16, true);
            return { code, text: code < 0 ? errorText(datagram.subarray(at, at + length)) : '', data };
          }
          data = datagram.slice(at, at + length);
        }
        at += align4(length);
      }
    }
  }
}

/**
 * How a request ended: 0 or a negative errno, the kernel's own words, and the data message that came
 * before.
 */
interface Answer {
  readonly code: number;
  readonly text: string;
  readonly data: Uint8Array;
}

const EMPTY = new Uint8Array(0);

function align4(length: number): number {
  return (length + 3) & ~3;
}

/**
 * The kernel's sentence in an extended acknowledgement; it follows the header that NETLINK_CAP_ACK leaves.
 */
function errorText(message: Uint8Array): string {
  const view = new DataView(message.buffer, message.byteOffset, message.byteLength);
  let text = '';
  eachAttribute(view, 16 + 4 + 16, (type, at, length) => {
    if (type === NLMSGERR_ATTR_MSG) text = Buffer.from(message.slice(at, at + length - 1)).toString('latin1');
  });
  return text;
}

function eachAttribute(
  view: DataView,
  start: number,
  visit: (type: number, at: number, length: number) => void,
): void {
  for (let at = start; at + 4 <= view.byteLength; ) {
    const length = view.getUint16(at, true);
    if (length < 4 || at + length > view.byteLength) return;
    visit(view.getUint16(at + 2, true) & 0x3fff, at + 4, length - 4);
    at += align4(length);
  }
}

function parseLink(message: Uint8Array): LinkInfo {
  assert(message.length >= 32, 'the kernel answered a link request without a link');
  const view = new DataView(message.buffer, message.byteOffset, message.byteLength);
  let name = '';
  let mtu = 0;
  let address: Uint8Array = EMPTY;
  eachAttribute(view, 32, (type, at, length) => {
    if (type === IFLA_IFNAME) name = Buffer.from(message.slice(at, at + length - 1)).toString('latin1');
    if (type === IFLA_MTU) mtu = view.getUint32(at, true);
    if (type === IFLA_ADDRESS) address = message.slice(at, at + length);
  });
  return { index: view.getInt32(20, true), flags: view.getUint32(24, true), name, mtu, address };
}

function routeMessage(type: number, flags: number, route: RouteOptions): Message {
  const prefix = parsePrefix(route.destination);
  if (prefix === null) throw badText('route', route.destination);
  const RTA_DST = 1;
  const RTA_OIF = 4;
  const RTA_GATEWAY = 5;
  const RTA_PRIORITY = 6;
  const RTA_PREFSRC = 7;
  const RTA_METRICS = 8;
  const RTA_TABLE = 15;
  const RTAX_MTU = 2;
  const RTAX_ADVMSS = 8;
  const RTPROT_STATIC = 4;
  const routeType = ROUTE_TYPE[route.type ?? 'unicast'];
  const scope = route.scope ?? (route.type === 'local' ? 'host' : 'global');
  const message = new Message(type, flags);
  message.bytes(Uint8Array.of(prefix.family === 4 ? AF_INET : AF_INET6, prefix.length, 0, 0));
  message.bytes(Uint8Array.of(0, RTPROT_STATIC, ROUTE_SCOPE[scope], routeType));
  message.u32(0);
  message.number(RTA_TABLE, route.table ?? 254);
  if (prefix.length > 0) message.attribute(RTA_DST, prefix.bytes);
  if (route.link !== undefined) message.number(RTA_OIF, route.link);
  if (route.metric !== undefined) message.number(RTA_PRIORITY, route.metric);
  for (const [attribute, text] of [
    [RTA_GATEWAY, route.gateway],
    [RTA_PREFSRC, route.source],
  ] as const) {
    if (text === undefined) continue;
    const bytes = parseIp(text);
    if (bytes === null || bytes.length !== prefix.bytes.length) throw badText('route address', text);
    message.attribute(attribute, bytes);
  }
  if (route.mtu !== undefined || route.advertisedSegmentMax !== undefined) {
    const metrics = message.begin(RTA_METRICS | NESTED);
    if (route.mtu !== undefined) message.number(RTAX_MTU, route.mtu);
    if (route.advertisedSegmentMax !== undefined) message.number(RTAX_ADVMSS, route.advertisedSegmentMax);
    message.end(metrics);
  }
  return message;
}

/** One request under construction. */
class Message {
  readonly #bytes = new Uint8Array(MESSAGE_BYTES_MAX);
  readonly #view = new DataView(this.#bytes.buffer);
  #length = 16;

  constructor(type: number, flags: number) {
    this.#view.setUint16(4, type, true);
    this.#view.setUint16(6, REQUEST | ACK | flags, true);
  }

  bytes(bytes: Uint8Array): void {
    assert(this.#length + bytes.length <= MESSAGE_BYTES_MAX);
    this.#bytes.set(bytes, this.#length);
    this.#length += bytes.length;
  }

  u16(value: number): void {
    this.#view.setUint16(this.#length, value, true);
    this.#length += 2;
  }

  u32(value: number): void {
    this.#view.setUint32(this.#length, value, true);
    this.#length += 4;
  }

  /** struct ifinfomsg: family unspecified, type 0, index, flags, and which flags to change. */
  link(index: number, flags: number, mask: number): void {
    this.u32(0);
    this.u32(index);
    this.u32(flags);
    this.u32(mask);
  }

  attribute(type: number, value: Uint8Array): void {
    const start = this.begin(type);
    this.bytes(value);
    this.end(start);
  }

  number(type: number, value: number): void {
    const start = this.begin(type);
    this.u32(value);
    this.end(start);
  }

  text(type: number, value: string): void {
    this.attribute(type, Buffer.from(`${value}\0`, 'latin1'));
  }

  /** Opens an attribute; what follows until `end` is its content. */
  begin(type: number): number {
    const start = this.#length;
    this.u16(0);
    this.u16(type);
    return start;
  }

  end(start: number): void {
    this.#view.setUint16(start, this.#length - start, true);
    this.#length = align4(this.#length);
  }

  finish(sequence: number): Uint8Array {
    this.#view.setUint32(0, this.#length, true);
    this.#view.setUint32(8, sequence, true);
    return this.#bytes.subarray(0, this.#length);
  }
}

function badText(what: string, text: string): RampartError {
  return new RampartError('RAMP_DEVICE', `"${text}" is not a valid ${what}`);
}
