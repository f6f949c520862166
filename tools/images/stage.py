"""Real files of an image, made quickly: the certain bytes stay in place, an image is written over them and taken back."""

import os
import shutil

import disk


class Stage:
    """A directory in which the images of one disk stand, one after the other."""

    def __init__(self, directory, model):
        self.images = os.path.join(directory, "image")
        self.inodes = os.path.join(directory, "inodes")
        self.model = model
        self.files = {}  # id(Inode) → (Inode, descriptor, path)
        self.shown = {}  # name → path, as it stands
        os.makedirs(self.images)
        os.makedirs(self.inodes)
        model.settled = self.settle

    def close(self):
        for _inode, descriptor, _path in self.files.values():
            os.close(descriptor)
        shutil.rmtree(self.images)
        shutil.rmtree(self.inodes)

    def settle(self, inode, changes):
        """More of it is certain now."""
        if id(inode) in self.files:
            carry_out(self.files[id(inode)][1], changes)

    def show(self, fate):
        """The image as files; returns what `clear` needs to take it back."""
        self._name({name: inode for name, inode in fate.names.items() if not name.endswith(disk.UNSEEN)})
        touched = {key: changes for key, changes in fate.changes.items() if key in self.files}
        for key, changes in touched.items():
            carry_out(self.files[key][1], changes)
        return touched

    def clear(self, touched):
        """Only the certain bytes again."""
        for key, changes in touched.items():
            inode, descriptor, _path = self.files[key]
            certain = memoryview(inode.data)
            for change in changes:
                # What stood behind the end of a truncation comes back too.
                end = len(certain) if change.data is None else change.offset + len(change.data)
                if change.offset < len(certain):
                    os.pwrite(descriptor, certain[change.offset : end], change.offset)
            os.ftruncate(descriptor, len(certain))
            certain.release()

    def copy(self, to):
        """The image that stands, for somebody who writes into it."""
        shutil.copytree(self.images, to)

    def _name(self, names):
        wanted = {name: self._file(inode) for name, inode in names.items() if not inode.is_directory}
        if wanted == self.shown:
            return
        shutil.rmtree(self.images)
        os.mkdir(self.images)
        for name, path in wanted.items():
            # A name in a directory whose own name was lost is lost with it.
            if self._is_reachable(name, names):
                os.makedirs(os.path.dirname(os.path.join(self.images, name)), exist_ok=True)
                os.link(path, os.path.join(self.images, name))
        self.shown = wanted

    @staticmethod
    def _is_reachable(name, names):
        parent = name.rpartition("/")[0]
        return not parent or parent in names

    def _file(self, inode):
        if id(inode) not in self.files:
            path = os.path.join(self.inodes, str(len(self.files)))
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            os.pwrite(descriptor, inode.data, 0)
            self.files[id(inode)] = (inode, descriptor, path)
        return self.files[id(inode)][2]


def carry_out(descriptor, changes):
    for change in changes:
        if change.data is None:
            os.ftruncate(descriptor, change.offset)
        else:
            os.pwrite(descriptor, change.data, change.offset)
