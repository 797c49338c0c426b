import { join } from 'node:path';

import type { IpPrefix } from '#base/ip.ts';
import { formatPrefix } from '#base/ip.ts';
import { attachNamespace, type PrivateNamespace } from '#io/namespace.ts';
import type { PacketDevice } from '#io/packet-device.ts';

/** A device as the config describes it. */
export interface DeviceSpec {
  readonly device: string;
  /** Name or path of the namespace that it lies in; null: this process's own. */
  readonly namespace: string | null;
  readonly mtu: number;
  readonly addresses: readonly { readonly address: string; readonly length: number }[];
  readonly deviceRoutes: readonly IpPrefix[];
}

/** A device that is open, and how it is taken away again. */
export interface OpenDevice {
  readonly device: PacketDevice;
  /** Deletes the link and closes the descriptors, which no operation may be using any more. */
  close(): Promise<void>;
}

/** Where namespaces have their names (`ip netns`). `RAMPART_NETNS_DIR` names another folder. */
const NAMESPACE_FOLDER = '/run/netns';

/**
 * Routes of two devices to one prefix stand side by side: the first device in the config has the lower
 * metric.
 */
const FIRST_METRIC = 100;

let opened = 0;

/**
 * Opens a TUN (or a packet socket, where TUN is forbidden) in its namespace, and gives it addresses and
 * routes.
 *
 * @throws RampartError RAMP_NAMESPACE or RAMP_DEVICE, saying what is missing.
 */
export async function openDevice(spec: DeviceSpec): Promise<OpenDevice> {
  const namespace = await attachNamespace(namespacePath(spec.namespace), { stock: {} });
  try {
    const device = await namespace.openPacketDevice({ name: spec.device, mtu: spec.mtu });
    await configure(namespace, device, spec);
    return {
      device,
      close: async () => {
        await namespace.closePacketDevice(device);
        await namespace.close();
      },
    };
  } catch (error) {
    await namespace.close();
    throw error;
  }
}

/** Path of a namespace by its name in the config. */
export function namespacePath(name: string | null): string {
  if (name === null) return '/proc/thread-self/ns/net';
  if (name.startsWith('/')) return name;
  return join(process.env.RAMPART_NETNS_DIR ?? NAMESPACE_FOLDER, name);
}

async function configure(namespace: PrivateNamespace, device: PacketDevice, spec: DeviceSpec): Promise<void> {
  const metric = FIRST_METRIC + opened++;
  await namespace.configure({
    addresses: spec.addresses.map(({ address, length }) => ({
      device: device.name,
      address: `${address}/${length}`,
    })),
    routes: spec.deviceRoutes.map((prefix) => ({
      device: device.name,
      destination: formatPrefix(prefix),
      metric,
    })),
  });
}
