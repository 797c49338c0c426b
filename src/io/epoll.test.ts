import { ioConformance } from './conformance.ts';
import { openEngine } from './engine.ts';

ioConformance({ name: 'epoll', real: true, open: () => openEngine({ kind: 'epoll' }) });
