/**
 * `base` holds what two or more folders need and what knows none of them: assertions, errors, drop reasons,
 * IP addresses, counters. Nothing here touches a descriptor, a clock or a packet format.
 *
 * This file is the folder's front: it says what belongs here. Import the file that you need, not this one.
 */
export {};
