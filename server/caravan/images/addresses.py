"""Which addresses are on the public internet, so that images may be downloaded from them.

Written out, not `ipaddress.is_global`: that answer differs between Python's releases, and it does
not look at the IPv4 address inside an IPv6 one. Source: IANA's special-purpose address registries
(RFC 6890 and its updates), read on the strict side.
"""

from __future__ import annotations

import ipaddress

_NOT_PUBLIC_V4 = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carriers' NAT, and Alibaba's metadata service, 100.100.100.200
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local, and most clouds' metadata service, 169.254.169.254
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments, and Oracle's metadata service, 192.0.0.192
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # relays from 6to4
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)

# Everything else, such as ::1, fc00::/7 with fd00:ec2::254, fe80::/10 and ff00::/8, is not public.
_UNICAST_V6 = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_V6 = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "3fff::/20",  # documentation
    )
)

# An IPv6 network whose addresses lead to an IPv4 address, and the bits to the right of that.
_V4_INSIDE = (
    (ipaddress.IPv6Network("::ffff:0:0/96"), 0),  # IPv4-mapped
    (ipaddress.IPv6Network("64:ff9b::/96"), 0),  # NAT64
    (ipaddress.IPv6Network("2002::/16"), 80),  # 6to4
)


def is_public(address: str) -> bool:
    """True if `address`, an IPv4 or IPv6 literal, is globally reachable unicast.

    Whatever is not a literal in its usual form (four decimal numbers; IPv6, a %scope allowed) is
    not public.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv4Address):
        return _is_public_v4(parsed)
    for network, shift in _V4_INSIDE:
        if parsed in network:
            return _is_public_v4(ipaddress.IPv4Address(int(parsed) >> shift & 0xFFFFFFFF))
    return parsed in _UNICAST_V6 and not any(parsed in network for network in _NOT_PUBLIC_V6)


def _is_public_v4(address: ipaddress.IPv4Address) -> bool:
    return not any(address in network for network in _NOT_PUBLIC_V4)
