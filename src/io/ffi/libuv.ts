/**
 * The handles of libuv that put an engine into Node's own event loop. Like `libc.ts`, all functions have two
 * to six pointer arguments; results are libuv's, which are negative errno numbers.
 */
import { getCurrentEventLoop } from 'node:ffi';

import { big, nativeFunction, nativePointerFunction, processLibrary } from './libc.ts';

const uvHandleSize = nativePointerFunction('uv_handle_size', 2);
const uvReqSize = nativePointerFunction('uv_req_size', 2);
const uvPollInit = nativeFunction('uv_poll_init', 3);
const uvPollStart = nativeFunction('uv_poll_start', 3);
const uvPrepareInit = nativeFunction('uv_prepare_init', 2);
const uvPrepareStart = nativeFunction('uv_prepare_start', 2);
const uvIdleInit = nativeFunction('uv_idle_init', 2);
const uvIdleStart = nativeFunction('uv_idle_start', 2);
const uvIdleStop = nativeFunction('uv_idle_stop', 2);
const uvTimerInit = nativeFunction('uv_timer_init', 2);
const uvTimerStart = nativeFunction('uv_timer_start', 4);
const uvTimerStop = nativeFunction('uv_timer_stop', 2);
const uvUpdateTime = nativeFunction('uv_update_time', 2);
const uvRef = nativeFunction('uv_ref', 2);
const uvUnref = nativeFunction('uv_unref', 2);
const uvClose = nativeFunction('uv_close', 2);
const uvFsClose = nativeFunction('uv_fs_close', 4);
const cMalloc = nativePointerFunction('malloc', 2);
const cFree = nativeFunction('free', 2);

/** A C function that frees its argument. */
const FREE = processLibrary.getSymbol('free');
/** A C function that looks at a handle and does nothing. */
const NOTHING = processLibrary.getSymbol('uv_handle_get_type');

/** Numbers of `uv_handle_type` and `uv_req_type`, which are part of libuv's ABI. */
const UV_IDLE = 6n;
const UV_POLL = 8n;
const UV_PREPARE = 9n;
const UV_TIMER = 13n;
const UV_FS = 6n;
const UV_READABLE = 1n;

/** What the loop calls. None may throw: an exception must not cross into native code. */
export interface LoopCallbacks {
  /** The descriptor is readable. */
  onReadable(): void;
  /** The loop is about to look for events, and perhaps to sleep. */
  onPrepare(): void;
  /** The time given to `startTimer` is over. */
  onTimer(): void;
}

/** An address and what was registered, to be undone. */
interface NativeCallback {
  readonly pointer: bigint;
}

/**
 * Handles that are open. When the process or the worker ends, Node runs the loop once more with JavaScript
 * forbidden, and a callback then aborts the process; so they are closed before. (`Worker.terminate` gives no
 * such chance: a worker that has an engine must be asked to end.)
 */
const open = new Set<LoopHandles>();

function closeAllAtExit(): void {
  for (const handles of open) handles.close();
}

/** Handles of one engine in the event loop of the thread that made it. */
export class LoopHandles {
  readonly #loop = getCurrentEventLoop();
  readonly #poll: bigint;
  readonly #prepare: bigint;
  readonly #idle: bigint;
  readonly #timer: bigint;
  readonly #onTimer: NativeCallback;
  readonly #registered: NativeCallback[] = [];

  /**
   * @param fd a descriptor that epoll accepts; it stays the caller's. @throws Error when libuv refuses it.
   */
  constructor(fd: number, callbacks: LoopCallbacks) {
    this.#poll = allocateHandle(UV_POLL);
    this.#prepare = allocateHandle(UV_PREPARE);
    this.#idle = allocateHandle(UV_IDLE);
    this.#timer = allocateHandle(UV_TIMER);
    const failed = uvPollInit(this.#loop, this.#poll, big(fd));
    if (failed < 0) throw new Error(`uv_poll_init failed: errno ${-failed}`);
    const onReadable = this.#register(['pointer', 'i32', 'i32'], () => callbacks.onReadable());
    const onPrepare = this.#register(['pointer'], () => callbacks.onPrepare());
    this.#onTimer = this.#register(['pointer'], () => callbacks.onTimer());
    uvPollStart(this.#poll, UV_READABLE, onReadable.pointer);
    uvPrepareInit(this.#loop, this.#prepare);
    uvPrepareStart(this.#prepare, onPrepare.pointer);
    uvIdleInit(this.#loop, this.#idle);
    uvTimerInit(this.#loop, this.#timer);
    for (const handle of [this.#poll, this.#prepare, this.#idle, this.#timer]) uvUnref(handle, 0n);
    if (open.size === 0) process.on('exit', closeAllAtExit);
    open.add(this);
  }

  /** Keeps the loop, and so the process, alive. */
  ref(): void {
    uvRef(this.#poll, 0n);
  }

  unref(): void {
    uvUnref(this.#poll, 0n);
  }

  /** Keeps the loop from sleeping until `letSleep`. */
  keepAwake(): void {
    uvIdleStart(this.#idle, NOTHING);
  }

  letSleep(): void {
    uvIdleStop(this.#idle, 0n);
  }

  /** Calls `onTimer` once after `delayMs` whole milliseconds; an earlier setting is replaced. */
  startTimer(delayMs: number): void {
    // The loop's clock stands still within a turn; a stale one would let the timer fire early.
    uvUpdateTime(this.#loop, 0n);
    uvTimerStart(this.#timer, this.#onTimer.pointer, big(delayMs), 0n);
  }

  stopTimer(): void {
    uvTimerStop(this.#timer, 0n);
  }

  /** Unhooks from the loop. The descriptor may be closed afterwards. */
  close(): void {
    if (!open.delete(this)) return;
    if (open.size === 0) process.off('exit', closeAllAtExit);
    const handles = [this.#poll, this.#prepare, this.#idle, this.#timer];
    for (const handle of handles) uvClose(handle, 0n);
    // libuv is done with a closed handle at the end of the turn, which the second of two immediates is past.
    setImmediate(() => {
      setImmediate(() => {
        for (const handle of handles) cFree(handle, 0n);
        for (const { pointer } of this.#registered) processLibrary.unregisterCallback(pointer);
      });
    });
  }

  #register(parameters: readonly ('pointer' | 'i32')[], run: () => void): NativeCallback {
    const pointer = processLibrary.registerCallback({ arguments: parameters, return: 'void' }, run);
    const callback = { pointer };
    this.#registered.push(callback);
    return callback;
  }
}

/**
 * Closes `fd` in libuv's thread pool, for descriptors whose close(2) blocks. The process stays alive until it
 * is done.
 */
export function closeOffThread(fd: number): void {
  const request = cMalloc(uvReqSize(UV_FS, 0n), 0n);
  // free(3) itself is the callback: it also works when JavaScript may not run any more.
  const failed = uvFsClose(getCurrentEventLoop(), request, big(fd), FREE);
  if (failed < 0) cFree(request, 0n);
}

function allocateHandle(type: bigint): bigint {
  return cMalloc(uvHandleSize(type, 0n), 0n);
}
