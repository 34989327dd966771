// Owns the client's address: whose it is behind proxies, and by what it is counted.
import type { IncomingMessage } from 'node:http'
import { BlockList, SocketAddress, isIP } from 'node:net'

const loopback = new BlockList()
loopback.addSubnet('127.0.0.0', 8, 'ipv4')
loopback.addAddress('::1', 'ipv6')

/**
 * What a client is counted by: IPv4, or the /64 of IPv6. It is the socket's peer, or the last
 * X-Forwarded-For entry that no trusted proxy wrote; null when a loopback peer hides its clients.
 */
export function clientAddress(incoming: IncomingMessage, trusted: BlockList): string | null {
  const peer = plain(incoming.socket.remoteAddress ?? '')
  const isTrusted = (ip: string): boolean => isIn(loopback, ip) || isIn(trusted, ip)
  if (!isTrusted(peer)) return toBucket(peer)
  const forwarded = String(incoming.headers['x-forwarded-for'] ?? '')
  const entries = forwarded.split(',').map(plain).filter(Boolean)
  if (entries.length === 0) return isIn(loopback, peer) ? null : toBucket(peer)
  const client = entries.findLast((entry) => !isTrusted(entry)) ?? (entries[0] as string)
  return toBucket(isIP(client) === 0 ? peer : client)
}

/** An address without port, brackets, zone, or the IPv4-mapped prefix. */
function plain(entry: string): string {
  const text = entry.trim().replace(/%.*$/, '')
  const bare = /^\[([^\]]+)\](?::\d+)?$/.exec(text)?.[1] ?? /^([\d.]+):\d+$/.exec(text)?.[1] ?? text
  if (isIP(bare) !== 6) return bare
  const { address } = new SocketAddress({ address: bare, family: 'ipv6' })
  return /^::ffff:([\d.]+)$/.exec(address)?.[1] ?? address
}

function isIn(list: BlockList, ip: string): boolean {
  const family = isIP(ip)
  return family !== 0 && list.check(ip, family === 4 ? 'ipv4' : 'ipv6')
}

function toBucket(ip: string): string {
  if (isIP(ip) !== 6) return ip
  const [head = '', tail = ''] = ip.split('::')
  const left = head === '' ? [] : head.split(':')
  const right = tail === '' ? [] : tail.split(':')
  const groups = [...left, ...Array(8 - left.length - right.length).fill('0'), ...right]
  return groups.slice(0, 4).join(':')
}
