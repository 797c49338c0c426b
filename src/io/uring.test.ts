import { ioConformance } from './conformance.ts';
import { openEngine, ringRefusal } from './engine.ts';

ioConformance({
  name: 'uring',
  real: true,
  open: () => openEngine({ kind: 'uring' }),
  skip: ringRefusal() ?? false,
});
