// Mirrors API 36: only the members that the app uses. That of level 23 inherits from classes that are not there.
package android.widget;

import android.content.Context;
import android.view.Menu;
import android.view.MenuItem;
import android.view.View;

public class PopupMenu {
    public PopupMenu(Context context, View anchor) {}

    public Menu getMenu() {
        throw new UnsupportedOperationException();
    }

    public void inflate(int menuRes) {
        throw new UnsupportedOperationException();
    }

    public void setOnMenuItemClickListener(OnMenuItemClickListener listener) {
        throw new UnsupportedOperationException();
    }

    public void show() {
        throw new UnsupportedOperationException();
    }

    public interface OnMenuItemClickListener {
        boolean onMenuItemClick(MenuItem item);
    }
}
