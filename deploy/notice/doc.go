// Package notice watches for the news that this box goes away: spot instances that are taken back, hosts that go into
// maintenance, and whatever a user has of that kind.
//
// A [Source] is one place where such news appears: the metadata service of a cloud, a file, a URL, a signal. [Parse]
// makes sources of the words that users type. [Watch] watches them and announces each [Notice], with the deadline by
// which the box has to be left.
//
// Without sources that a user names, [Auto] finds the cloud of this box. It reads the vendor in /sys/class/dmi/id, and
// sends nothing where that names no cloud. Only where there is no such folder (gVisor, macOS) it asks each metadata
// service once, for at most a second.
//
// Nothing that comes from outside is trusted: answers are at most 64 KiB, redirects and proxies are not followed to
// metadata services, and a time that makes no sense is replaced by the notice that the cloud promises.
package notice
