package doctor

import (
	"os"
	"slices"
	"strconv"
	"strings"
)

// fields reads a file of accounts, such as passwd(5). One that cannot be read
// has none.
func (h Host) fields(file string) (lines [][]string) {
	text, _ := os.ReadFile(h.Etc + "/" + file)
	for line := range strings.Lines(string(text)) {
		if f := strings.Split(strings.TrimSpace(line), ":"); len(f) >= 4 {
			lines = append(lines, f)
		}
	}
	return lines
}

// userName gives a user's name, or the number where there is none.
func (h Host) userName(uid int) string {
	for _, f := range h.fields("passwd") {
		if f[2] == strconv.Itoa(uid) {
			return f[0]
		}
	}
	return strconv.Itoa(uid)
}

// user finds a user's number and primary group.
func (h Host) user(name string) (uid, gid int, known bool) {
	for _, f := range h.fields("passwd") {
		if f[0] == name {
			uid, errUID := strconv.Atoi(f[2])
			gid, errGID := strconv.Atoi(f[3])
			return uid, gid, errUID == nil && errGID == nil
		}
	}
	return 0, 0, false
}

// group finds a group's number.
func (h Host) group(name string) (gid int, known bool) {
	for _, f := range h.fields("group") {
		if f[0] == name {
			gid, err := strconv.Atoi(f[2])
			return gid, err == nil
		}
	}
	return 0, false
}

// groupName gives a group's name, or the number where there is none, and who is
// in it, whether named there or by a primary group.
func (h Host) groupName(gid int) (name string, members []string) {
	name = strconv.Itoa(gid)
	for _, f := range h.fields("group") {
		if f[2] == name {
			name = f[0]
			for _, m := range strings.Split(f[3], ",") {
				if m != "" {
					members = append(members, m)
				}
			}
			break
		}
	}
	for _, f := range h.fields("passwd") {
		if f[3] == strconv.Itoa(gid) && !slices.Contains(members, f[0]) {
			members = append(members, f[0])
		}
	}
	return name, members
}

// groupsOf gives the groups that a user is named in.
func (h Host) groupsOf(user string) (gids []int) {
	for _, f := range h.fields("group") {
		if gid, err := strconv.Atoi(f[2]); err == nil && slices.Contains(strings.Split(f[3], ","), user) {
			gids = append(gids, gid)
		}
	}
	return gids
}

// groupNames gives the groups' names.
func (h Host) groupNames(gids []int) (names []string) {
	for _, gid := range gids {
		name, _ := h.groupName(gid)
		names = append(names, name)
	}
	return names
}
