import { ioConformance } from './conformance.ts';
import { openEngine } from './engine.ts';

ioConformance({ name: 'uring', real: true, open: () => openEngine({ kind: 'uring' }) });
